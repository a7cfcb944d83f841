#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""balloond_vms.py BALLOOND GNOMON - real VMs under the daemon: three processes of `gnomon run --control` whose memory together is
twice the budget. Targets are obeyed and the budget is kept; the daemon is killed in their midst, and comes back; a VM is killed, and
the others have its memory. A VM that is late has its zeros taken. All of it with the guests' self-checks and an audit. Last line: N passed, N failed."""
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

from daemons import FakeDaemon

BALLOOND, GNOMON = (os.path.realpath(p) for p in sys.argv[1:3])
MIB = 1 << 20
BUDGET, MEM, MIN = 192 * MIB, 128 * MIB, 16 * MIB
# A guest in need takes memory back by itself, a MiB at a time; the daemon makes up for it in its next round.
RELIEF = 3 * MIB
# Whatever is to happen happens in milliseconds; so long it may take where the machine has other work.
LIMIT_S = 30
PHASES = "20/15/60000,80/10/60000,15/70/60000x14"
passed = failed = 0


def check(holds, what):
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print("FAIL:", what)


def until(condition, seconds=LIMIT_S):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    return None


def start_daemon(folder):
    path = os.path.join(folder, "s")
    with open(os.path.join(folder, "ini"), "w") as file:
        file.write(f"[daemon]\nsocket = {path}\nevent_log = {folder}/log\n[memory]\nbudget = {BUDGET}\n"
                   "[policy]\nsettle = 3s\nperiod = 100ms\n")
    return subprocess.Popen([BALLOOND, "--config", os.path.join(folder, "ini")])


def ask(folder, command):
    """The answer, or None: no daemon."""
    try:
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(LIMIT_S)
            s.connect(os.path.join(folder, "s"))
            lines = s.makefile("rw")
            lines.readline()
            lines.write(json.dumps({"execute": command, "id": 1}) + "\n")
            lines.flush()
            return json.loads(lines.readline())["return"]
    except OSError:
        return None


def vms(folder):
    return {vm["name"]: vm for vm in ask(folder, "query-vms") or []}


def rounds(folder):
    return ask(folder, "query-policy")["rounds"]


def is_over(folder):
    return sum(vm["actual_bytes"] for vm in vms(folder).values()) > BUDGET + RELIEF


def watch(folder, count, what):
    """For @count rounds and more: no more is promised than there is, reservations are kept, every VM reaches its target now and then. What VMs
    have is within the budget, but for what guests in need take back: mostly, and always again within LIMIT_S."""
    end, limit = rounds(folder) + count, time.monotonic() + LIMIT_S
    followed, polls, over_polls, over_since, longest_s = set(), 0, 0, None, 0
    while polls < 2 * count or rounds(folder) < end or (len(followed) < len(now) and time.monotonic() < limit):
        now, at = vms(folder), time.monotonic()
        promised = sum(vm["target_bytes"] for vm in now.values())
        check(promised <= BUDGET, f"{what}: no more is promised than there is: {promised / MIB:.2f} of {BUDGET / MIB:.0f} MiB")
        check(all(vm["target_bytes"] >= MIN for vm in now.values()), f"{what}: reservations")
        followed |= {n for n, vm in now.items() if abs(vm["actual_bytes"] - vm["target_bytes"]) <= MIB}
        over = sum(vm["actual_bytes"] for vm in now.values()) > BUDGET + RELIEF
        over_since = (over_since or at) if over else None
        longest_s = max(longest_s, at - (over_since or at))
        polls, over_polls = polls + 1, over_polls + over
        time.sleep(0.05)
    check(until(lambda: not is_over(folder)) and longest_s <= LIMIT_S, f"{what}: over the budget for {longest_s:.1f} s")
    check(over_polls <= polls / 2, f"{what}: over the budget in {over_polls} of {polls} polls")
    check(followed == set(vms(folder)), f"{what}: targets are reached by {followed}")


def start_vm(folder, name, *options, scheme="ept", phases=PHASES):
    return subprocess.Popen([GNOMON, "run", scheme, "phases", "--mem", "128M", "--size", "64M", "--argument", phases, "--audit",
                             "--control", os.path.join(folder, "s"), "--name", name, "--min", "16M", *options],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def life(folder):
    daemon = start_daemon(folder)
    until(lambda: ask(folder, "query-version"))
    guests = {name: start_vm(folder, name, "--seed", str(seed)) for seed, name in enumerate(("a", "b", "c"))}
    try:
        check(until(lambda: len(vms(folder)) == 3), "all are admitted")
        admitted = rounds(folder)  # one that comes brings what it has; it is a round that promises
        check(until(lambda: rounds(folder) > admitted + 1), "rounds go on")
        refused = start_vm(folder, "d", "--mem", "256M", "--min", "256M")  # also when the others have ended
        guests["d"] = refused
        check(until(lambda: sum(vm["actual_bytes"] for vm in vms(folder).values()) > BUDGET // 2), "they fill what they were told")
        watch(folder, 15, "three VMs")
        before = vms(folder)
        daemon.kill()
        daemon.wait()
        time.sleep(0.7)  # for the guests to go on in; nothing has to be done by then
        check(all(guests[n].poll() is None for n in "abc"), "they run on without a daemon")
        daemon = start_daemon(folder)
        check(until(lambda: len(vms(folder)) == 3), "they come back")
        check(all(abs(vm["actual_bytes"] - before[n]["actual_bytes"]) <= MEM // 2 for n, vm in vms(folder).items()),
              "with what they had")
        check(until(lambda: not ask(folder, "query-host")["settling"]), "it settles")
        promised = sum(vm["target_bytes"] for vm in vms(folder).values())
        check(promised <= BUDGET, f"its first round promises what there is: {promised / MIB:.2f} MiB")
        check(until(lambda: not is_over(folder)), "what guests took beyond the budget meanwhile comes back")
        watch(folder, 15, "a new daemon")
        guests["c"].kill()
        guests["c"].wait()
        check(until(lambda: len(vms(folder)) == 2), "the dead VM is gone")
        # Two of 128 MiB cannot have had this much while the third held its reservation.
        grown = until(lambda: sum(vm["target_bytes"] for vm in vms(folder).values()) > BUDGET - MIN)
        check(grown, "and its memory is there for the others")
        for name in "ab":
            out, err = guests[name].communicate(timeout=900)
            check(guests[name].returncode == 0 and "balloon: " in out, f"{name} ends well: {err}")
        out, err = refused.communicate(timeout=900)
        check(refused.returncode == 3 and err.count("\n") == 1 and "admits" in err, f"no room, no VM: {refused.returncode} {err}")
    finally:
        for guest in guests.values():
            guest.kill()
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(LIMIT_S)


def late(folder, scheme):
    """A daemon to whom a VM is late from the start: what its host side takes is reported, the guest does not notice."""
    with FakeDaemon(os.path.join(folder, "s")) as d:
        guest = start_vm(folder, "late", scheme=scheme, phases="20/15/60000x14")
        try:
            d.meet("balloon", "events")
            d.say({"return": {"target_bytes": MEM, "serial": 1, "period_ms": 50, "heartbeat_ms": 50}, "id": d.hear()["id"]})
            taken = 0
            while not taken and (report := d.report()):
                taken = report.get("reclaimed_bytes", 0)
                d.say({"event": "RECLAIM", "data": {"vm": "late", "bytes": MEM}})
            check(taken > 0 and taken % 4096 == 0, f"{scheme}: a late VM's zeros are taken, and reported: {taken}")
            d.hang_up()
            out, err = guest.communicate(timeout=900)
            said = [line for line in out.splitlines() if "of zeros" in line]
            check(guest.returncode == 0 and len(said) == 1 and "took 0 B" not in said[0], f"{scheme}: and it ends well: {said} {err}")
        finally:
            guest.kill()


def freeing(folder):
    """A daemon that lets VMs look at themselves once a minute hears at once that much was freed: another may wait for it."""
    with FakeDaemon(os.path.join(folder, "s")) as d:
        guest = start_vm(folder, "freeing", "--rest", "2", phases="80/10/20000,5/5/20000")

        def free_bytes():
            report = d.report()
            return report and report.get("free_bytes", MEM)

        try:
            d.meet("balloon", "events")
            d.say({"return": {"target_bytes": MEM, "serial": 1, "period_ms": 60000, "heartbeat_ms": 60000}, "id": d.hear()["id"]})
            serial, free = 1, free_bytes()
            while free is not None and free > 24 * MIB:  # told anew what it is told already, it looks
                time.sleep(0.02)
                serial += 1
                d.say({"event": "TARGET", "data": {"vm": "freeing", "target_bytes": MEM, "serial": serial, "deadline_ms": 10000}})
                free = free_bytes()
            check(free is not None, "the VM uses its memory")
            used = free
            while free is not None and free < used + 32 * MIB:
                free = free_bytes()
            check(free is not None, "what it frees is told before it ends")
            d.hang_up()
            out, err = guest.communicate(timeout=900)
            check(guest.returncode == 0, f"it ends well: {err}")
        finally:
            guest.kill()


def usage():
    for options in (["--min", "16M"], ["--control", "s", "--min", "2G"], ["--control", "s", "--repeat", "2"], ["--control", "s", "--shares", "0"]):
        done = subprocess.run([GNOMON, "run", "ept", "random", *options], capture_output=True, text=True, timeout=LIMIT_S)
        check(done.returncode == 2 and done.stderr.count("\n") == 1, f"{options}: {done.returncode} {done.stderr}")


usage()
for test, *arguments in ((late, "ept"), (late, "native"), (freeing,), (life,)):
    with tempfile.TemporaryDirectory() as where:
        try:
            test(where, *arguments)
        except Exception as error:  # the count must be printed whatever happens
            check(False, repr(error))
print(f"{passed} passed, {failed} failed")
sys.exit(failed != 0)
