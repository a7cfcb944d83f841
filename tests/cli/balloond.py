#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""balloond.py BALLOOND GNOMON - the daemon as its operator and its VMs meet it: configuration, commands, admission,
targets, signals, metrics, `gnomon top`. Last line: N passed, N failed."""
import os
import re
import resource
import signal
import subprocess
import sys
import time
import urllib.request

import daemons
from daemons import Daemon, FakeDaemon, LIMIT_S, check, check_configuration, port_free, run_tests, until

BALLOOND, GNOMON = (os.path.realpath(p) for p in sys.argv[1:3])
MIB = 1 << 20
Daemon.program = BALLOOND


class Peer(daemons.Peer):
    """With a name, a VM that obeys at once."""

    def rounds_pass(self, count):
        """Until the daemon has made so many more rounds."""
        end = self.ask("query-policy")["return"]["rounds"] + count
        return until(lambda: self.ask("query-policy")["return"]["rounds"] >= end)

    def register(self, name, mem, low, actual, **more):
        return self.ask("register", name=name, mem_bytes=mem * MIB, min_bytes=low * MIB, actual_bytes=actual * MIB, **more)


def configuration(folder):
    check_configuration(folder, "balloond.ini",
                        [("[memory]\nbudget=1G\n[policy]\ntua=1\n", ":4: no key \"tua\""), ("[memory]\nbudget=12Q\n", ":2: budget"),
                         ("", "budget in [memory] is missing"), ("nonsense", ":1: neither")])


def commands(folder):
    port = port_free()
    d = Daemon(folder, f"[memory]\nbudget = 1G\n[policy]\nsettle = 0s\nperiod = 100ms\n[metrics]\nport = {port}\ntextfile = {folder}/m.prom\n")
    tool, a, b, c = (Peer(d.path) for _ in range(4))
    check(tool.greeting["gnomon"]["version"]["product"] == "gnomon-balloond", "greeting")
    check("query-vms" in tool.ask("query-commands")["return"], "query-commands")
    check("return" in a.register("a", 1024, 256, 0), "a is registered")
    check("return" in b.register("b", 1024, 512, 0), "b is registered")
    refused = c.register("c", 1024, 300, 0)
    check(refused.get("error", {}).get("class") == "NoRoom", f"c does not fit: {refused}")
    check(c.register("a", 1024, 1, 0)["error"]["class"] == "NameTaken", "a name twice")
    check(a.register("a2", 1024, 1, 0)["error"]["class"] == "AlreadyRegistered", "a connection twice")
    check(c.register("c", 10, 20, 0)["error"]["class"] == "InvalidArgument", "min above max")
    check(c.ask("register", name="c")["error"]["class"] == "InvalidArgument", "sizes missing")
    told = a.event("TARGET")
    check(told and 256 * MIB <= told["target_bytes"] <= 1024 * MIB, f"a is told a target: {told}")
    a.report(actual_bytes=told["target_bytes"], serial=told["serial"])
    told_b = b.event("TARGET")
    b.report(actual_bytes=told_b["target_bytes"], serial=told_b["serial"], reclaimed_bytes=3 * MIB, reformed_blocks=7)
    tool.rounds_pass(5)
    vms = {vm["name"]: vm for vm in tool.ask("query-vms")["return"]}
    check(set(vms) == {"a", "b"} and sum(vm["target_bytes"] for vm in vms.values()) <= 1024 * MIB, "query-vms")
    check((vms["a"]["reclaimed_bytes"], vms["b"]["reclaimed_bytes"]) == (0, 3 * MIB), "what was reclaimed is told")
    host = tool.ask("query-host")["return"]
    check(host["reserved_bytes"] == 768 * MIB and host["vms"] == 2, "query-host")
    check(tool.ask("query-policy")["return"]["name"] == "esx", "query-policy")
    check(tool.ask("set-vm", vm="a", min_bytes=600 * MIB)["error"]["class"] == "NoRoom", "set-vm beyond the budget")
    check(tool.ask("set-vm", vm="x", shares=5)["error"]["class"] == "VmNotFound", "set-vm of nobody")
    check(tool.ask("set-vm", vm="a", shares=2000)["return"] == {}, "set-vm")
    check(a.event("SETTINGS")["shares"] == 2000, "the VM keeps its settings")
    top = subprocess.run([GNOMON, "top", "--once", "--socket", d.path], capture_output=True, text=True, timeout=LIMIT_S)
    check(top.returncode == 0 and "2 VMs" in top.stdout and "\na " in top.stdout, f"gnomon top: {top.stdout}{top.stderr}")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LIMIT_S) as page:
        text = page.read().decode()
    check(f'gnomon_vm_reclaimed_bytes_total{{vm="b"}} {3 * MIB}\n' in text, f"metrics: {text}")
    check('gnomon_vm_reformed_blocks_total{vm="a"} 0\n' in text and 'gnomon_vm_reformed_blocks_total{vm="b"} 7\n' in text, "and what was formed again")
    check('gnomon_vm_target_bytes{vm="a"}' in text and "gnomon_vms_refused_total 5\n" in text, f"metrics: {text}")
    check("gnomon_vms 2\n" in open(os.path.join(folder, "m.prom")).read(), "textfile")
    tool.ask("pause")
    b.close()
    check(until(lambda: tool.ask("query-host")["return"]["reserved_bytes"] == 256 * MIB), "the dead VM's memory is back")
    check("return" in c.register("c", 1024, 300, 0), "now c fits")
    check(tool.rounds_pass(5) and c.event("TARGET", 0.1) is None, "paused: nobody is told anything")
    tool.ask("resume")
    check(c.event("TARGET") is not None, "resumed")
    check(tool.ask("quit")["return"] == {} and d.process.wait(LIMIT_S) == 0, "quit")
    check([e["vm"] for e in d.logged("registered")] == ["a", "b", "c"], "event log")
    top = subprocess.run([GNOMON, "top", "--once", "--socket", d.path], capture_output=True, text=True, timeout=LIMIT_S)
    check(top.returncode == 3 and top.stderr.count("\n") == 1, "gnomon top without a daemon")


def textfile(folder):
    """For another user's collector, whatever the umask; a failure is said once, until it is over."""
    rest = f"[memory]\nbudget = 1G\n[policy]\nperiod = 50ms\n[metrics]\nport = {port_free()}\ntextfile = {folder}/node/m.prom\n"
    umask = os.umask(0o077)
    d = Daemon(folder, rest)
    os.umask(umask)
    tool, file = Peer(d.path), os.path.join(folder, "node/m.prom")

    def failures():
        with urllib.request.urlopen(f"http://127.0.0.1:{tool.ask('query-host')['return']['metrics_port']}/metrics", timeout=LIMIT_S) as page:
            return int(page.read().decode().split("gnomon_textfile_failures_total ")[3].split()[0])

    for times in (1, 2):
        then = failures()
        check(until(lambda: failures() >= then + 3), "each failure is counted")
        check(d.said().count("No such file") == times and len(d.logged("textfile-failed")) == times, f"and said once: {d.said()}")
        os.mkdir(os.path.dirname(file))
        check(until(lambda: os.path.exists(file)) and os.stat(file).st_mode & 0o777 == 0o644, "the textfile is there, for all to read")
        os.rename(os.path.dirname(file), f"{folder}/{times}")
    check(d.end() == 0, "ends")
    root = os.path.join(os.path.dirname(__file__), "../../packaging/")
    with open(root + "balloond.ini") as ini, open(root + "gnomon-balloond.service.in") as unit:
        sample = re.search(r"such as (/\S+)/[^/]+\.prom", ini.read())
        check(sample and f"\nReadWritePaths=-{sample[1]}\n" in unit.read(), "the unit may write where the sample says")


def signals(folder):
    rest = "[policy]\nsettle = 0s\nperiod = 100ms\ndeadline = 200ms\n"
    d = Daemon(folder, "stop = deflate\n[memory]\nbudget = 1G\n" + rest)
    a = Peer(d.path)
    a.register("a", 2048, 256, 900)
    d.write("stop = deflate\n[memory]\nbudget = 1Q\n" + rest)
    d.process.send_signal(signal.SIGHUP)
    check(until(lambda: "the old configuration stays" in d.said()) and a.ask("query-host")["return"]["budget_bytes"] == 1024 * MIB, "bad reload")
    d.write("stop = deflate\n[memory]\nbudget = 100M\n" + rest)
    d.process.send_signal(signal.SIGHUP)
    check(until(lambda: "reserved" in d.said()), "a budget below the reservations is refused")
    a.events.clear()
    os.rename(os.path.join(folder, "log"), os.path.join(folder, "log.1"))
    d.write("stop = deflate\n[memory]\nbudget = 512M\n" + rest)
    d.process.send_signal(signal.SIGHUP)
    check(until(lambda: a.ask("query-host")["return"]["budget_bytes"] == 512 * MIB), "reload")
    check(len(d.logged("reloaded")) == 1, "the event log was reopened")
    reclaim = a.event("RECLAIM")
    check(reclaim and reclaim["bytes"] > 0, "a late VM is reclaimed from")
    check(d.logged("late"), "and logged")
    second = subprocess.run([BALLOOND, "-c", d.ini], capture_output=True, text=True, timeout=LIMIT_S)
    check(second.returncode == 3 and "another daemon" in second.stderr, "two daemons on one socket")
    a.events.clear()
    d.process.send_signal(signal.SIGTERM)
    while (told := a.event("TARGET")) and told["target_bytes"] != 2048 * MIB:
        pass
    check(told, "SIGTERM deflates")
    a.report(actual_bytes=told["target_bytes"], serial=told["serial"])
    check(d.process.wait(LIMIT_S) == 0 and not os.path.exists(d.path), "and ends cleanly")


def vm_process(path):
    """The pid of a VM that is a process of its own, comes back whenever its connection ends, and has 600 MiB."""
    pid = os.fork()
    if pid:
        return pid
    resumed = False
    while True:
        try:
            peer = Peer(path)
            if "return" in peer.register("child", 1024, 256, 600, max_bytes=600 * MIB, resumed=resumed):
                resumed = True
            peer.socket.settimeout(None)
            while True:
                if (message := peer.read()).get("event") == "TARGET":
                    peer.report(actual_bytes=600 * MIB, serial=message["data"]["serial"])
        except ConnectionError:
            time.sleep(0.05)
        except BaseException:
            os._exit(1)


def lose(tool, pid):
    """Stop the process and tell it more than it could ever be told, until the daemon drops it."""
    os.kill(pid, signal.SIGSTOP)
    while "return" in tool.ask("set-vm", vm="child", shares=1000):
        pass
    return [vm for vm in tool.ask("query-vms")["return"] if vm["name"] == "child" and vm["lost"]]


def lost(folder):
    d = Daemon(folder, "messages_per_s = 1000000\n[memory]\nbudget = 1G\n[policy]\nsettle = 0s\nperiod = 50ms\n")
    tool, b = Peer(d.path), Peer(d.path)
    child = vm_process(d.path)
    try:
        check(until(lambda: tool.ask("query-host")["return"]["vms"] == 1), "a VM of another process")
        check(lose(tool, child), "it is stopped, does not read, and is lost")
        check("return" in b.register("b", 1024, 64, 0), "b is registered")
        b.report(actual_bytes=0, serial=0, asks_bytes=1024 * MIB)
        tool.rounds_pass(10)
        vms = {vm["name"]: vm for vm in tool.ask("query-vms")["return"]}
        check(vms["child"]["actual_bytes"] == 600 * MIB and 0 < vms["b"]["target_bytes"] <= 424 * MIB, f"nobody is given what it holds: {vms}")
        c = Peer(d.path)
        check(c.register("c", 1024, 400, 0)["error"]["class"] == "NoRoom", "nor is it promised")
        check(c.register("child", 1024, 1, 0)["error"]["class"] == "NameTaken", "nobody takes its name")
        os.kill(child, signal.SIGCONT)
        check(until(lambda: tool.ask("query-host")["return"]["lost_bytes"] == 0), "it comes back")
        check(sorted((vm["name"], vm["lost"]) for vm in tool.ask("query-vms")["return"]) == [("b", False), ("child", False)], "once")
        check(lose(tool, child), "it is lost again")
    finally:
        os.kill(child, signal.SIGKILL)
    check(until(lambda: d.logged("gone")), "it is dead before anybody waits for it")
    told = until(lambda: (t := b.event("TARGET", 1)) and t["target_bytes"] > 424 * MIB)
    check(told, "and its memory is there for b")
    os.waitpid(child, 0)
    check(c.ask("unregister")["error"]["class"] == "NotRegistered", "who is no VM cannot unregister")
    check(d.end() == 0, "ends")


def freed(folder):
    """What a VM frees is known of at once when another waits: the period is a minute."""
    d = Daemon(folder, "[memory]\nbudget = 1G\n[policy]\nsettle = 0s\nperiod = 60s\n")
    a, b = Peer(d.path), Peer(d.path)
    in_use = {"actual_bytes": 600 * MIB, "active_bytes": 600 * MIB, "recent_bytes": 600 * MIB}
    check("return" in a.register("a", 1024, 64, 600, max_bytes=600 * MIB) and "return" in b.register("b", 1024, 64, 64), "both are registered")
    a.report(serial=0, free_bytes=0, available_bytes=0, **in_use)
    b.report(actual_bytes=64 * MIB, serial=0, asks_bytes=900 * MIB)
    check(b.event("TARGET"), "b is given what there is")
    a.report(serial=0, free_bytes=500 * MIB, available_bytes=500 * MIB, **in_use)
    told = until(lambda: (t := a.event("TARGET", 1)) and t["target_bytes"] < 200 * MIB)
    check(told, "a is asked for what it has freed, a minute before the next round")
    check(d.end() == 0, "ends")


def settling(folder):
    d = Daemon(folder, "[memory]\nbudget = 1G\n[policy]\nsettle = 60s\n")
    tool, vm = Peer(d.path), Peer(d.path)
    for _ in range(9):
        check(vm.register("new", 512, 100, 0)["error"]["class"] == "TryAgain", "no newcomer before the others are back")
    vm.register("other", 512, 100, 0)
    vm.register("new", 512, 513, 0)
    refused = [(e["vm"], e["class"]) for e in d.logged("refused")]
    check(refused == [("new", "TryAgain"), ("other", "TryAgain"), ("new", "InvalidArgument")], f"which is logged once: {refused}")
    d.write("[memory]\nbudget = 900M\n[policy]\nsettle = 60s\n")
    d.process.send_signal(signal.SIGHUP)
    check(until(lambda: "had time to come back" in d.said()), "a smaller budget is refused while it settles")
    check(tool.ask("query-host")["return"]["budget_bytes"] == 1024 * MIB, "and the old one stays")
    check("return" in vm.register("back", 2048, 1100, 1500, resumed=True), "a VM that is back is taken in, whatever it reserves")
    check(d.logged("over-reserved")[0]["over_bytes"] == 76 * MIB, "which is said")
    check("return" in tool.ask("set-vm", vm="back", shares=7), "its settings can be changed")
    error = tool.ask("set-vm", vm="back", min_bytes=1200 * MIB)["error"]
    check(error["class"] == "NoRoom" and "only 0 bytes" in error["desc"], f"but not raised: {error}")
    d.write("[memory]\nbudget = 1050M\n[policy]\nsettle = 60s\n")
    d.process.send_signal(signal.SIGHUP)
    check(until(lambda: d.logged("reloaded")), "a budget that grows is taken, though it is too small")
    check(d.end() == 0, "ends")


def settled(folder):
    """The round that ends the settling comes at once, not in the next period; VMs have more than the budget by then."""
    d = Daemon(folder, "[memory]\nbudget = 1G\n[policy]\nsettle = 1s\nperiod = 60s\n")
    tool, a, b = (Peer(d.path) for _ in range(3))
    for vm, name in ((a, "a"), (b, "b")):
        check("return" in vm.register(name, 1024, 64, 700, resumed=True), f"{name} is back")
    check(tool.ask("query-host")["return"]["settling"], "it settles")
    check(sum(vm["target_bytes"] for vm in tool.ask("query-vms")["return"]) == 1400 * MIB, "and moves nothing")
    check(until(lambda: not tool.ask("query-host")["return"]["settling"]), "that ends long before the first period does")
    check(sum(vm["target_bytes"] for vm in tool.ask("query-vms")["return"]) <= 1024 * MIB, "with a round, so no more is promised than there is")
    check(a.event("TARGET") and b.event("TARGET"), "of which VMs are told")
    policy = tool.ask("query-policy")["return"]
    check(policy["rounds"] == 1 and policy["early_rounds"] == 0, f"one round: {policy}")
    check("return" in Peer(d.path).register("c", 64, 32, 0), "newcomers are welcome")
    check(d.end() == 0, "ends")


def trust(folder):
    """Refaults are a claim like others: in memory that is not used they cost a guest its word, asks or none."""
    d = Daemon(folder, "[memory]\nbudget = 1G\n[policy]\nsettle = 0s\nrefaults = 50\n")
    tool = Peer(d.path)
    forged = {"forger": {"refaults_per_s": 60}, "asks too": {"refaults_per_s": 60, "asks_bytes": MIB},
              "slow": {"refaults_per_s": 40}, "has room": {"refaults_per_s": 60, "free_bytes": 100 * MIB}}
    peers = {name: Peer(d.path) for name in forged}
    for name, peer in peers.items():
        check("return" in peer.register(name, 128, 128, 128), f"{name} is registered")

    def doubted():
        for name, peer in peers.items():
            peer.report(actual_bytes=128 * MIB, serial=0, active_bytes=16 * MIB, recent_bytes=16 * MIB, **forged[name])
        return {vm["name"] for vm in tool.ask("query-vms")["return"] if not vm["claims_trusted"]}

    start = time.monotonic()
    check(not doubted(), "sampling may lag behind")
    check(until(lambda: len(doubted()) >= 2, 60) and time.monotonic() - start > 10, "but not for more than 10 s")
    check(doubted() == {"forger", "asks too"}, f"not believed: {doubted()}")
    check(d.end() == 0, "ends")


def slow(folder):
    """A VM that shrinks steadily is not late, however long it takes; one that does not shrink is."""
    d = Daemon(folder, "[memory]\nbudget = 512M\n[policy]\nsettle = 0s\nperiod = 50ms\ndeadline = 3s\n")
    steady, stuck = Peer(d.path), Peer(d.path)
    for vm, name in ((steady, "steady"), (stuck, "stuck")):
        vm.register(name, 1024, 64, 512)
    first = steady.event("TARGET")
    has, target, serial, start = 512 * MIB, first["target_bytes"], first["serial"], time.monotonic()
    while has > target or time.monotonic() - start < 3:
        has = max(min(has, target), has - 4 * MIB)
        steady.report(actual_bytes=has, serial=serial)
        if told := steady.event("TARGET", 0.1):
            target, serial = told["target_bytes"], told["serial"]
    check(time.monotonic() - start > 4, "it takes more than a deadline")
    check(until(lambda: d.logged("late")), "somebody is late")
    check([e["vm"] for e in d.logged("late")] == ["stuck"], f"who gives nothing: {d.logged('late')}")
    check(d.end() == 0, "ends")


def savings(folder):
    """What a sharing daemon saves is divided too, less its reserve, as long as it answers; no reservation rests on it."""
    said = {"saved_bytes": 300 * MIB, "reserve_bytes": 100 * MIB}
    path = os.path.join(folder, "shared")
    with FakeDaemon(path) as sharing:
        d = Daemon(folder, f"[memory]\nbudget = 512M\nsharing_socket = {path}\n[policy]\nname = static\nsettle = 0s\nperiod = 50ms\n")
        tool, vm, other = (Peer(d.path) for _ in range(3))

        def answer():
            asked = sharing.hear()
            check(asked == {"execute": "query-sharing"}, f"it asks: {asked}")
            sharing.say({"return": said})

        sharing.meet()
        answer()
        check(until(lambda: tool.ask("query-host")["return"]["saved_bytes"] == 200 * MIB), "savings less the reserve")
        check("return" in vm.register("a", 2048, 256, 100), "a VM")

        def target():
            return tool.ask("query-vms")["return"][0]["target_bytes"]

        check(until(lambda: target() > 512 * MIB) and target() <= 712 * MIB, f"is given of it: {target() / MIB}")
        check(other.register("b", 2048, 300, 0)["error"]["class"] == "NoRoom", "no reservation is")
        said["saved_bytes"] = 0
        answer()
        check(until(lambda: target() <= 512 * MIB), "guests wrote their pages, and it is gone")
        said["saved_bytes"] = 300 * MIB
        answer()
        check(until(lambda: target() > 512 * MIB), "it is there again")
        sharing.hang_up()
        check(until(lambda: target() <= 512 * MIB), "who does not answer saves nothing")
    check(d.end() == 0, "ends")


def dry_run(folder):
    d = Daemon(folder, "[memory]\nbudget = 1G\n[policy]\nsettle = 0s\nperiod = 100ms\n", "--dry-run")
    a = Peer(d.path)
    a.register("a", 2048, 256, 2000)
    check(a.rounds_pass(5) and a.event("TARGET", 0.1) is None, "a dry run tells nobody")
    would = d.logged("would-target")
    check(would and would[0]["target_bytes"] < 2000 * MIB and len(would) < 4, f"it says what it would do: {len(would)}")
    check(d.end() == 0, "ends")


def descriptors(folder):
    """More connections than a shell's limit of descriptors allows; where no more are to be had, that is said."""
    few, many = 50, 100
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    d = Daemon(folder, f"connections = {many}\n[memory]\nbudget = 1G\n", files=(few, hard))
    peers = [Peer(d.path) for _ in range(many)]
    check(all("return" in p.ask("query-version") for p in peers), "each is answered")
    check("RLIMIT_NOFILE" not in d.said(), "nothing is amiss")
    for p in peers:
        p.socket.close()
    check(d.end() == 0, "ends")
    d = Daemon(folder, f"connections = {many}\n[memory]\nbudget = 1G\n", files=(few, few))
    check(f"connections = {many} may need 400 descriptors" in d.said(), f"it says so: {d.said()}")
    check("return" in Peer(d.path).ask("query-version"), "and works")
    check(d.end() == 0, "ends")


run_tests((configuration, descriptors, commands, textfile, signals, settling, settled, lost, freed, trust, slow, savings, dry_run))
