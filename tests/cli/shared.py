#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""shared.py SHARED GNOMON - gnomon-shared as its operator and its VMs meet it: configuration, domains by both sides, commands, metrics,
reload, CPU budget, dry run, VMs that are lost; and VMs of `gnomon run --sharing`, whose guests notice nothing. Last line: N passed, N failed."""
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

import daemons
from daemons import Daemon, LIMIT_S, check, check_configuration, metrics, port_free, run_tests, until

SHARED, GNOMON = (os.path.realpath(p) for p in sys.argv[1:3])
MIB = 1 << 20
Daemon.program = SHARED
EAGER = "[sharing]\ncpu_percent = 200\nsweep = 20ms\n"


class Peer(daemons.PeerWithDescriptors):
    """With a name, a VM that has no pages to offer."""

    def register(self, name, **more):
        return self.ask("register", name=name, mem_bytes=MIB, **more)


def configuration(folder):
    check_configuration(folder, "shared.ini",
                        [("[sharing]\ncpu = 1\n", ":2: no key \"cpu\""), ("[domain ]\nvms = a\n", ":2:"), ("[domain a]\nvm = a\n", ":2: no key \"vm\""),
                         ("[domain a]\nvms = a\n[domain a]\nvms = b\n", ":4: vms of [domain a] was given already"),
                         ("[domain a]\nvms = a\nquiet = very\n", ":3: quiet = \"very\": it takes on or off"),
                         ("[domain a]\nvms = a\n[domain b]\nquiet = on\n", "vms in [domain b] is missing"),
                         ("[sharing]\ncpu_percent = 0\n", ":2: cpu_percent"), ("nonsense", ":1: neither")])


def domains_need_both(folder):
    d = Daemon(folder, "[domain web]\nvms = web-* db\n[domain other]\nvms = o\n")
    tool, a, b, c, alone = (Peer(d.path) for _ in range(5))
    for name, domain in (("web", "web"), ("db", "other"), ("db", "none"), ("o", "web")):
        check(a.register(name, domain=domain)["error"]["class"] == "NotInDomain", f"{name} is not of {domain}")
    check("return" in a.register("web-1", domain="web") and len(a.fds) == 2, "one that both name")
    check("return" in b.register("db", domain="web") and len(b.fds) == 2, "another")
    check("return" in c.register("o", domain="other"), "one of another domain")
    check("return" in alone.register("alone") and not alone.fds, "one of its own domain has no descriptors to share by")
    check(Peer(d.path).register("db", domain="web")["error"]["class"] == "NameTaken", "a name is one VM's")
    check(alone.ask("get-segment", segment=0)["error"]["class"] == "NotRegistered", "nor segments")
    check(a.ask("get-segment", segment=0)["error"]["class"] == "NoSegment", "there is none yet")
    vms = {vm["name"]: vm for vm in tool.ask("query-vms")["return"]}
    check({n: vm.get("domain") for n, vm in vms.items()} == {"web-1": "web", "db": "web", "o": "other", "alone": None}, f"who is where: {vms}")
    check({(x["name"], x["vms"]) for x in tool.ask("query-domains")["return"]} == {("web", 2), ("other", 1)}, "domains")
    check(tool.ask("audit") == {"return": {}, "id": 1}, "books")
    refused = [(e["vm"], e["class"]) for e in d.logged("refused")]
    check(refused[:2] == [("web", "NotInDomain"), ("db", "NotInDomain")], f"which is logged: {refused}")
    b.close()
    check(until(lambda: {(x["name"], x["vms"]) for x in tool.ask("query-domains")["return"]} == {("web", 1), ("other", 1)}), "db has left")
    d.write("[domain web]\nvms = nobody\n[domain other]\nvms = o\n")
    d.process.send_signal(signal.SIGHUP)
    check(until(lambda: "web-1" not in {vm["name"] for vm in tool.ask("query-vms")["return"] if not vm["lost"]}),
          "a VM that the configuration names no more is let go")
    check({vm["name"]: vm["lost"] for vm in tool.ask("query-vms")["return"]} == {"web-1": True, "o": False, "alone": False},
          "and charged until its process ends")
    check(Peer(d.path).register("web-1", domain="web")["error"]["class"] == "NotInDomain", "and not taken again")
    check(d.end() == 0, "ends")


def quiet_needs_both(folder):
    """A domain is quiet by the configuration; a VM is told, and refused if it does not know what that is, or wants it and does not get it."""
    rest = f"[metrics]\nport = {port_free()}\n[domain web]\nvms = *\nquiet = %s\n[domain plain]\nvms = *\n"
    d = Daemon(folder, rest % "on")
    tool, old, a, b, c = (Peer(d.path) for _ in range(5))
    check(old.register("old", domain="web")["error"]["class"] == "IsQuiet", "one that does not know of it")
    check(old.register("old", domain="plain", quiet=True)["error"]["class"] == "NotQuiet", "one that wants it, and is not to have it")
    check(old.register("old", domain="web", quiet="yes")["error"]["class"] == "InvalidArgument", "neither yes nor no")
    check("quiet" not in old.register("old", domain="plain")["return"], "where it is not quiet nothing is said of it")
    told = a.register("a", domain="web", quiet=False)["return"]
    check(told["quiet"] is True and told["dry_run"] is False, f"one that knows is told: {told}")
    check(b.register("b", domain="web", quiet=True)["return"]["quiet"] is True, "one that wants it gets it")
    check("quiet" not in c.register("c", domain="plain", quiet=False)["return"], "nor where it would not mind")
    check({x["name"]: x["quiet"] for x in tool.ask("query-domains")["return"]} == {"web": True, "plain": False}, "domains")
    check({x["name"]: x["wants_quiet"] for x in tool.ask("query-vms")["return"]} == {"old": False, "a": False, "b": True, "c": False}, "VMs")
    a.report(pages_sharing=2, pages_sealed=9)
    check(until(lambda: tool.ask("query-sharing")["return"]["pages_sealed"] == 9), "what is sealed")
    figures = metrics(tool)
    check(figures['gnomon_domain_quiet{domain="web"}'] == 1 and figures['gnomon_domain_quiet{domain="plain"}'] == 0, "by domain")
    check(figures["gnomon_pages_sealed"] == 9, "as the metrics say")
    d.write(rest % "off")
    d.process.send_signal(signal.SIGHUP)
    check(until(lambda: {x["name"]: x["lost"] for x in tool.ask("query-vms")["return"]} == {"old": False, "a": True, "b": True, "c": False}),
          "all VMs of a domain that ceases to be quiet are let go")
    check({x["name"]: x["quiet"] for x in tool.ask("query-domains")["return"]} == {"web": False, "plain": False}, "and come to another one")
    a, b = Peer(d.path), Peer(d.path)
    check("quiet" not in a.register("a", domain="web", quiet=False)["return"], "who does not mind")
    check(b.register("b", domain="web", quiet=True)["error"]["class"] == "NotQuiet", "or not at all")
    d.write(rest % "on")
    d.process.send_signal(signal.SIGHUP)
    check(until(lambda: all(x["lost"] for x in tool.ask("query-vms")["return"] if x["domain"] == "web")), "and so when it becomes quiet")
    check(b.register("b", domain="web", quiet=True)["return"]["quiet"] is True, "as it is then")
    check(d.end() == 0, "ends")


def descriptors(folder):
    """What a VM is given can't be resized by it; an exchange that makes no sense is the end."""
    d = Daemon(folder, "[domain g]\nvms = *\n")
    tool, vm = Peer(d.path), Peer(d.path)
    check("return" in vm.register("v", domain="g"), "registered")
    exchange, link = vm.fds
    for size in (0, 1 << 30):
        try:
            os.ftruncate(exchange, size)
            check(False, "an exchange was resized")
        except OSError:
            check(True, "its size is sealed")
    os.pwrite(exchange, struct.pack("<I", 1 << 31), 64)
    os.write(link, b"!")
    try:
        vm.ask("query-sharing")
        vm.ask("query-sharing")
        while True:
            vm.read()
    except (ConnectionError, TimeoutError) as error:
        check(isinstance(error, ConnectionError), f"a broken exchange ends its connection: {error!r}")
    check([e["vm"] for e in d.logged("broken")] == ["v"], "which is logged")
    check(tool.ask("query-sharing")["return"]["vms"] == 0, "and nobody else minds")
    for fd in vm.fds:
        os.close(fd)
    check(d.end() == 0, "ends")


def budget(folder):
    d = Daemon(folder, "[sharing]\ncpu_percent = 3\nsweep = 40ms\n[domain g]\nvms = *\n")
    tool, a, b = (Peer(d.path) for _ in range(3))
    told = a.register("a")["return"]
    check(told == {"cpu_ppm": 24000, "sweep_ms": 40}, f"a fifth for the daemon, the rest for the VM: {told}")
    b.register("b")
    check(until(lambda: (a.event("SETTINGS") or {}).get("cpu_ppm") == 12000), "which two share")
    tool.ask("pause")
    check(until(lambda: (a.event("SETTINGS") or {}).get("cpu_ppm") == 0), "a pause is no time at all")
    tool.ask("resume")
    check(until(lambda: (a.event("SETTINGS") or {}).get("cpu_ppm") == 12000), "and ends")
    d.write("[sharing]\ncpu_percent = 6\nsweep = 80ms\n")
    d.process.send_signal(signal.SIGHUP)
    told = until(lambda: (e := a.event("SETTINGS")) and e["cpu_ppm"] == 24000 and e)
    check(told and told["sweep_ms"] == 80, f"a reload is told: {told}")
    d.write("[sharing]\ncpu_percent = many\n")
    d.process.send_signal(signal.SIGHUP)
    check(until(lambda: "cpu_percent" in d.said()) and tool.ask("query-sharing")["return"]["cpu_percent"] == 6, "a wrong one is refused, and said")
    check("return" in tool.ask("quit") and d.process.wait(LIMIT_S) == 0, "quit")


def start_vm(folder, name, *options, phases="50/20/20000x4"):
    return subprocess.Popen([GNOMON, "run", "ept", "phases", "--mem", "32M", "--size", "12M", "--argument", phases, "--rest", "1", "--audit",
                             "--sharing", os.path.join(folder, "s"), "--name", name, *options],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def check_ends(name, guest):
    out, err = guest.communicate(timeout=300)
    check(guest.returncode == 0 and "sharing: " in out, f"{name} ends well: {guest.returncode} {err}")
    sums = [line.split()[1] for line in out.splitlines() if line.startswith("memory_sum")]
    return sums[0] if sums else None


def vms_share(folder):
    """Clones of a group share across processes, one of none within itself; the daemon dies meanwhile. All compute what they would alone."""
    rest = EAGER + f"[metrics]\nport = {port_free()}\n[domain g]\nvms = a b\n"
    d = Daemon(folder, rest)
    tool = Peer(d.path)
    alone = subprocess.run([GNOMON, "run", "ept", "phases", "--mem", "32M", "--size", "12M", "--argument", "50/20/20000x4"],
                           capture_output=True, text=True, timeout=300).stdout
    expected = [line.split()[1].rstrip(";") for line in alone.splitlines() if line.startswith("memory_sum")]
    guests = {"a": start_vm(folder, "a", "--sharing-domain", "g"), "b": start_vm(folder, "b", "--sharing-domain", "g"), "c": start_vm(folder, "c")}
    stranger = start_vm(folder, "d", "--sharing-domain", "g")

    def merged():
        return {vm["name"]: vm["merged"] for vm in tool.ask("query-vms")["return"]}

    try:
        check(until(lambda: min(merged().get("a", 0), merged().get("b", 0)) > 500), f"a and b share: {merged()}")
        figures = until(lambda: (m := metrics(tool)) and m["gnomon_pages_sharing"] > 0 and m)
        check(figures and figures["gnomon_pages_shared"] > 100 and figures["gnomon_saved_bytes"] > 0, f"as the metrics say: {figures}")
        check(figures and figures['gnomon_mechanism_vms{mechanism="p2m"}'] >= 3 and figures['gnomon_vm_pages_sharing{vm="a"}'] > 0, "by VM and mechanism")
        check("return" in tool.ask("audit"), "books")
        d.process.kill()
        d.process.wait()
        check(all(guest.poll() is None for guest in guests.values()), "guests run on without a daemon")
        d = Daemon(folder, rest)
        tool = Peer(d.path)
        check(until(lambda: min(merged().get("a", 0), merged().get("b", 0)) > 0), f"and share under the next: {merged()}")
        sums = {name: check_ends(name, guest) for name, guest in guests.items()}
        check(all(s and s.rstrip(";") == expected[0] for s in sums.values()), f"memory is what it would be: {sums} {expected}")
        check(until(lambda: not tool.ask("query-vms")["return"]), "all have left")
        check(not tool.ask("query-domains")["return"], "and their domain with them")
        out, err = stranger.communicate(timeout=300)
        check(stranger.returncode == 3 and err.count("\n") == 1 and "name this VM" in err, f"who is not named does not run: {stranger.returncode} {err}")
    finally:
        for guest in (*guests.values(), stranger):
            guest.kill()
    check(d.end() == 0, "ends")


def blocks_share(folder):
    """VMs with frames of 2 MiB: their blocks are split where enough of them is alike, and they compute what they would alone."""
    alone = subprocess.run([GNOMON, "run", "ept", "phases", "--mem", "32M", "--size", "12M", "--argument", "50/20/20000x4"],
                           capture_output=True, text=True, timeout=300).stdout
    expected = [line.split()[1].rstrip(";") for line in alone.splitlines() if line.startswith("memory_sum")]
    d = Daemon(folder, EAGER + "[domain g]\nvms = a b\n")
    tool = Peer(d.path)
    guests = {n: start_vm(folder, n, "--sharing-domain", "g", "--backing", "2m") for n in "ab"}

    def merged():
        return {vm["name"]: vm["merged"] for vm in tool.ask("query-vms")["return"]}

    try:
        check(until(lambda: min(merged().get("a", 0), merged().get("b", 0)) > 200), f"a and b share: {merged()}")
        check("return" in tool.ask("audit"), "books")
        sums = {name: check_ends(name, guest) for name, guest in guests.items()}
        check(all(s and s.rstrip(";") == expected[0] for s in sums.values()), f"memory is what it would be: {sums} {expected}")
    finally:
        for guest in guests.values():
            guest.kill()
    check(d.end() == 0, "ends")


def quiet_vms_share(folder):
    """In a quiet domain guests share, notice nothing, and have pages sealed that nobody shares; who wants quiet shares in no other."""
    d = Daemon(folder, EAGER + "[domain g]\nvms = a b\nquiet = on\n[domain plain]\nvms = *\n")
    tool = Peer(d.path)
    began = time.monotonic()
    done = subprocess.run([GNOMON, "run", "ept", "phases", "--mem", "32M", "--size", "12M", "--sharing", d.path, "--sharing-domain", "plain",
                           "--sharing-quiet"], capture_output=True, text=True, timeout=300)
    check(done.returncode == 3 and done.stderr.count("\n") == 1 and "is not quiet" in done.stderr, f"refused: {done.returncode} {done.stderr}")
    check(time.monotonic() - began < 9, "at once: it need not be waited for")
    guests = {"a": start_vm(folder, "a", "--sharing-domain", "g", "--sharing-quiet"), "b": start_vm(folder, "b", "--sharing-domain", "g")}

    def share():
        vms = {vm["name"]: vm for vm in tool.ask("query-vms")["return"]}
        return len(vms) == 2 and min(vm["pages_sharing"] for vm in vms.values()) > 300 and vms

    try:
        vms = until(share)
        check(vms, f"a and b share: {tool.ask('query-vms')}")
        for vm in vms.values():
            check(vm["pages_sealed"] >= vm["pages_sharing"], f"and more is sealed than that: {vm}")
        check("return" in tool.ask("audit"), "books")
        sums = [check_ends(name, guest) for name, guest in guests.items()]
        check(sums[0] and sums[0] == sums[1], f"memory is what it would be: {sums}")
        check(until(lambda: not tool.ask("query-vms")["return"]), "all have left")
    finally:
        for guest in guests.values():
            guest.kill()
    check(d.end() == 0, "ends")


def quiet_is_not_taken_for_granted(folder):
    """A daemon that takes a VM which wants quiet, and says nothing of it: the VM leaves at once, and shares nothing."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.join(folder, "s"))
        listening.listen()
        listening.settimeout(LIMIT_S)
        guest = start_vm(folder, "a", "--sharing-domain", "g", "--sharing-quiet")
        try:
            peer, _ = listening.accept()
            peer.settimeout(LIMIT_S)
            lines = peer.makefile("r")
            peer.sendall(json.dumps({"gnomon": {"version": {"product": "gnomon-shared", "release": "0", "protocol": 1}, "capabilities": []}}).encode() + b"\n")
            asked = json.loads(lines.readline())
            check(asked["execute"] == "register" and asked["arguments"]["quiet"] is True, f"it says what it wants: {asked}")
            answer = json.dumps({"return": {"cpu_ppm": 1000000, "sweep_ms": 20}, "id": asked["id"]}).encode() + b"\n"
            socket.send_fds(peer, [answer], [listening.fileno(), listening.fileno()])
            check(json.loads(lines.readline())["execute"] == "unregister", "and leaves")
            out, err = guest.communicate(timeout=LIMIT_S)
            check(guest.returncode == 3 and "is not quiet" in err, f"saying why: {guest.returncode} {err}")
        finally:
            guest.kill()


def lost(folder):
    """A VM that is stopped is charged until it is dead."""
    d = Daemon(folder, EAGER + "[domain g]\nvms = a b\n")
    tool = Peer(d.path)
    guests = {n: start_vm(folder, n, "--sharing-domain", "g", phases="50/20/20000x30") for n in "ab"}

    def vm(name):
        return {vm["name"]: vm for vm in tool.ask("query-vms")["return"]}.get(name)

    try:
        check(until(lambda: vm("a") and vm("a")["charged_pages"] > 100), "they share")
        guests["a"].send_signal(signal.SIGSTOP)
        d.write(EAGER + "[domain g]\nvms = b\n")
        d.process.send_signal(signal.SIGHUP)
        check(until(lambda: vm("a")["lost"]), "a is let go while it is stopped")
        charged = vm("a")["charged_pages"]
        time.sleep(0.3)
        check(vm("a")["charged_pages"] == charged > 0 and "return" in tool.ask("audit"), "and what it may use stays")
        guests["a"].kill()
        guests["a"].wait()
        check(until(lambda: not vm("a")), "dead, it is forgotten")
        check("return" in tool.ask("audit"), "books")
        guests["b"].kill()
        guests["b"].wait()
        check(until(lambda: not tool.ask("query-domains")["return"]), "nobody, nothing")
    finally:
        for guest in guests.values():
            guest.kill()
    check(d.end() == 0, "ends")


def dry_run(folder, more=""):
    d = Daemon(folder, EAGER + "[domain g]\nvms = a b\n" + more, "--dry-run")
    tool = Peer(d.path)
    guests = {n: start_vm(folder, n, "--sharing-domain", "g") for n in "ab"}
    try:
        check(until(lambda: sum(x["could_merge"] for x in tool.ask("query-domains")["return"]) > 100), "it counts what could be shared")
        domain = tool.ask("query-domains")["return"][0]
        check(domain["merges_ordered"] == domain["shows"] == 0, f"and orders nothing: {domain}")
        check(tool.ask("query-sharing")["return"]["pages_sealed"] == 0, "nor is anything sealed")
        for name, guest in guests.items():
            check_ends(name, guest)
    finally:
        for guest in guests.values():
            guest.kill()
    check(d.end() == 0, "ends")


def quiet_dry_run(folder):
    dry_run(folder, "quiet = on\n")


def usage(folder):
    for options in (["--sharing-domain", "g"], ["--sharing", "s", "--sharing-quiet"], ["--sharing", "s", "--repeat", "2"], ["--sharing", "s", "--backend", "kvm", "--quick"], ["--name", "x"]):
        done = subprocess.run([GNOMON, "run", "ept", "random", *options], capture_output=True, text=True, timeout=LIMIT_S)
        check(done.returncode in (2, 3) and done.stderr.count("\n") == 1, f"{options}: {done.returncode} {done.stderr}")


run_tests((configuration, domains_need_both, quiet_needs_both, descriptors, budget, vms_share, blocks_share, quiet_vms_share, quiet_is_not_taken_for_granted, lost, dry_run, quiet_dry_run, usage))
