#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""template.py SHARED GNOMON - memory images that many VMs begin with: saved by `gnomon run`, kept by gnomon-shared, given to whom the
configuration names; reload, hostile questions, a daemon that dies, and VMs that compute what they should. Last line: N passed, N failed."""
import errno
import fcntl
import mmap
import os
import signal
import stat
import subprocess
import sys
import time

import daemons
from daemons import Daemon, LIMIT_S, check, check_configuration, metrics, port_free, run_tests, until

SHARED, GNOMON = (os.path.realpath(p) for p in sys.argv[1:3])
MIB = 1 << 20
PAGE = 4096
Daemon.program = SHARED
EAGER = "[sharing]\ncpu_percent = 200\nsweep = 20ms\n"
F_GET_SEALS, SEAL_SHRINK, SEAL_WRITE = 1034, 2, 8
WORKLOAD = ["phases", "--mem", "32M", "--size", "12M", "--argument", "50/20/20000x2"]


class Peer(daemons.PeerWithDescriptors):
    def register(self, name, **more):
        return self.ask("register", name=name, mem_bytes=MIB, **more)

    def get(self, template, name, **more):
        return self.ask("get-template", template=template, name=name, **more)


def image(folder, name, pages=4, byte=b"\x5a"):
    """A memory image whose second page is a hole."""
    path = os.path.join(folder, name)
    with open(path, "wb") as file:
        file.truncate(pages * PAGE)
        for page in range(pages):
            if page != 1:
                file.seek(page * PAGE)
                file.write(byte * PAGE)
    return path


def section(name, path, vms):
    return f"[template {name}]\nfile = {path}\nvms = {vms}\n"


def reload(d, config):
    d.write(config)
    d.process.send_signal(signal.SIGHUP)


def templates(tool):
    return {(t["name"], t["retired"]): t for t in tool.ask("query-templates")["return"]}


def gnomon(*arguments, scheme="ept"):
    return subprocess.run([GNOMON, "run", scheme, *arguments], capture_output=True, text=True, timeout=300)


def sum_of(text):
    return next((line.split()[1].rstrip(";") for line in text.splitlines() if line.startswith("memory_sum")), None)


def configuration(folder):
    good, short = image(folder, "good"), os.path.join(folder, "short")
    with open(short, "wb") as file:
        file.write(b"x" * (PAGE + 1))
    open(os.path.join(folder, "empty"), "w").close()
    os.mkfifo(os.path.join(folder, "fifo"))
    wrong = [("missing", "No such file"), ("short", "its size is no multiple of 4 KiB"), ("empty", "it is empty"), ("fifo", "it is no regular file"), ("", "it is no regular file"),
             ("good/x", "Not a directory")]
    check_configuration(folder, "shared.ini",
                        [("[template a]\nvms = x\n", "file in [template a] is missing"), (f"[template a]\nfile = {good}\n", "vms in [template a] is missing"),
                         ("[template ]\nvms = a\n", ":2:"), ("[template a]\nfiles = a\n", ":2: no key \"files\" in [template a]; it has file, vms"),
                         (section("a", good, "x") + section("a", good, "x"), ":5: file of [template a] was given already"),
                         *((section("a", os.path.join(folder, name), "x"), f"[template a]: file = {os.path.join(folder, name)}: {why}") for name, why in wrong),
                         *((section("ok", good, "x") + section("a", os.path.join(folder, name), "x"), why) for name, why in wrong)])
    os.chmod(good, 0)
    if os.getuid():
        code, said = daemons.run("--check-config", "-c", os.path.join(folder, "wrong.ini"))
        check(code == 2 and "Permission denied" in said, f"a file that may not be read: {code} {said}")


def given_to_whom_it_names(folder):
    """Before and after registration; what is given holds what the file held, and nobody can change it."""
    a, b = image(folder, "a", 4), image(folder, "b", 8, b"\x77")
    d = Daemon(folder, section("a", a, "web-* db") + section("b", b, "db"))
    os.unlink(a)
    tool, vm, other = (Peer(d.path) for _ in range(3))
    check(vm.get("a", "web-1")["return"] == {"bytes": 4 * PAGE}, "who is named, before it registers")
    check(vm.get("b", "web-1")["error"]["class"] == "NotInTemplate", "who is not")
    check(vm.get("b", "web")["error"]["class"] == "NotInTemplate", "nor like it")
    check(vm.get("c", "web-1")["error"]["class"] == "NoTemplate", "what is not there")
    fd, = vm.fds
    with mmap.mmap(fd, 4 * PAGE, mmap.MAP_SHARED, mmap.PROT_READ) as memory:
        check(memory[:] == b"\x5a" * PAGE + bytes(PAGE) + b"\x5a" * 2 * PAGE, "what the file held")
    check(fcntl.fcntl(fd, F_GET_SEALS) & (SEAL_SHRINK | SEAL_WRITE) == SEAL_SHRINK | SEAL_WRITE, "sealed")
    check(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY, "only to read")
    again = os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    for what, attempt in (("written", lambda: os.pwrite(fd, b"x", 0)), ("written anew", lambda: os.pwrite(again, b"x", 0)),
                          ("resized", lambda: os.ftruncate(again, 0)), ("grown", lambda: os.ftruncate(again, MIB)),
                          ("mapped to be written", lambda: mmap.mmap(again, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)),
                          ("unsealed", lambda: fcntl.fcntl(again, 1033, 0))):
        try:
            attempt()
            check(False, f"it was {what}")
        except OSError as error:
            check(error.errno in (errno.EPERM, errno.EBADF), f"{what}: {error}")
    check(vm.register("web-1", template="b")["error"]["class"] == "NotInTemplate", "over one that does not name it")
    check(vm.register("web-1", template="c")["error"]["class"] == "NoTemplate", "over none")
    check(vm.register("web-1", template="a", domain="x")["error"]["class"] in ("NotInDomain", "InvalidArgument"), "nor in a domain as well")
    check("return" in vm.register("web-1", template="a", mechanism="template"), "registered")
    check("return" in vm.get("a", "web-1") and len(vm.fds) == 2, "it may ask again")
    check(vm.get("a", "db")["error"]["class"] == "InvalidArgument", "but as itself")
    check("return" in other.get("a", "web-1"), "and its process over another connection")
    child = os.fork()
    if not child:
        answer = Peer(d.path).get("a", "web-1")
        os._exit(answer.get("error", {}).get("class") != "NameTaken")
    check(os.waitpid(child, 0)[1] == 0, "another process is not who it says it is")
    check(tool.ask("query-vms")["return"][0]["template"] == "a", "who is over what")
    check({k[0]: (t["bytes"], t["vms"]) for k, t in templates(tool).items()} == {"a": (4 * PAGE, 1), "b": (8 * PAGE, 0)}, "templates")
    check([(e["vm"], e["template"]) for e in d.logged("template-given")][:1] == [("web-1", "a")], "which is logged")
    check(("web-1", "NotInTemplate") in [(e["vm"], e["class"]) for e in d.logged("refused")], "and refusals")
    vm.close()
    check({t["vms"] for t in templates(tool).values()} == {0}, "it has left")
    check(d.end() == 0, "ends")


def both_are_refused(folder):
    """A VM over a template is in no domain of several."""
    d = Daemon(folder, section("a", image(folder, "a"), "*") + "[domain g]\nvms = *\n")
    answer = Peer(d.path).register("v", template="a", domain="g")
    check(answer["error"]["class"] == "InvalidArgument" and "no domain" in answer["error"]["desc"], f"{answer}")
    check(d.end() == 0, "ends")


def hostile(folder):
    d = Daemon(folder, section("a", image(folder, "a"), "*"))
    tool = Peer(d.path)
    for arguments in ({}, {"template": "a"}, {"name": "v"}, {"template": "", "name": "v"}, {"template": "a", "name": ""}, {"template": 1, "name": "v"},
                      {"template": "a" * 48, "name": "v"}, {"template": "a", "name": "v" * 64}, {"template": "a\n", "name": "v"}, {"template": ["a"], "name": "v"}):
        check(tool.ask("get-template", **arguments)["error"]["class"] == "InvalidArgument", f"{arguments}")
    check("error" in tool.get("a", "v", more=1), "an unknown argument")
    for name in ("../a", "*", "a*", "[a]", "a " * 20, "template a"):
        check(tool.get(name, "v")["error"]["class"] == "NoTemplate", name)

    def descriptors():
        return len(os.listdir(f"/proc/{d.process.pid}/fd"))

    before = descriptors()
    for _ in range(300):
        peer = tool.get("a", "v")
        check("return" in peer and len(tool.fds) == 1, "again")
        os.close(tool.fds.pop())
    check(until(lambda: descriptors() <= before), f"nothing is left of it: {before} {descriptors()}")
    deaf = Peer(d.path)
    deaf.socket.setblocking(False)
    try:
        for i in range(20000):
            deaf.socket.sendall(b'{"execute": "get-template", "arguments": {"template": "a", "name": "v"}}\n')
    except BlockingIOError:
        pass
    check("return" in tool.get("a", "v"), "who does not take what it asked for is nobody else's matter")
    check(descriptors() <= before + 8, f"nor does it hold many: {before} {descriptors()}")
    deaf.socket.close()
    check(until(lambda: descriptors() <= before), "and it is forgotten")
    check(d.end() == 0, "ends")


def reloads(folder):
    """Templates come and go; one that VMs are over stays until they leave; a wrong file changes nothing."""
    a, b = image(folder, "a", 4), image(folder, "b", 8)
    rest = f"[metrics]\nport = {port_free()}\n"
    d = Daemon(folder, rest + section("a", a, "*"))
    tool, vm = Peer(d.path), Peer(d.path)
    check("return" in vm.register("v", template="a"), "registered")
    vm.get("a", "v")
    old, = (os.fstat(fd).st_ino for fd in vm.fds)
    reload(d, rest + section("a", a, "*") + section("b", b, "*"))
    check(until(lambda: ("b", False) in templates(tool)), "one more")
    vm.get("a", "v")
    check(os.fstat(vm.fds[-1]).st_ino == old, "what is as it was is not read again")
    figures = metrics(tool)
    check((figures['gnomon_template_bytes{template="b"}'], figures['gnomon_template_vms{template="b"}']) == (8 * PAGE, 0), "metrics of b")
    check((figures['gnomon_template_bytes{template="a"}'], figures['gnomon_template_vms{template="a"}']) == (4 * PAGE, 1), "metrics of a")
    check(figures['gnomon_template_resident_bytes{template="a"}'] == 3 * PAGE, "a hole has no memory")
    reload(d, rest + section("c", b, "*") + section("b", os.path.join(folder, "missing"), "*"))
    check(until(lambda: d.logged("reload-refused")) and "[template b]: file = " in d.said(), "a wrong file is said")
    check(set(templates(tool)) == {("a", False), ("b", False)}, "and nothing is taken over")
    reload(d, f"[daemon]\n[metrics]\n{section('c', b, '*')}".replace("[daemon]\n", f"event_log = {folder}/none/log\n") + rest)
    check(until(lambda: len(d.logged("reload-refused")) == 2), "nor of one that is wrong elsewhere")
    check(set(templates(tool)) == {("a", False), ("b", False)}, "nothing")
    image(folder, "a", 5, b"\x11")
    reload(d, rest + section("a", a, "w"))
    check(until(lambda: set(templates(tool)) == {("a", False), ("a", True)}), f"another file: another template, and b is gone: {templates(tool)}")
    check(templates(tool)[("a", True)]["vms"] == 1 and templates(tool)[("a", False)]["bytes"] == 5 * PAGE, "the VM is over the old one")
    check(vm.get("a", "v")["error"]["class"] == "NotInTemplate", "and gets none any more")
    check("return" in vm.ask("query-vms"), "but keeps its connection")
    check("gnomon_template_bytes{template=\"b\"}" not in metrics(tool), "nor is b in the metrics")
    check(Peer(d.path).get("a", "w")["return"] == {"bytes": 5 * PAGE}, "others get the new one")
    reload(d, rest)
    check(until(lambda: set(templates(tool)) == {("a", True)}), "removed: only for who has it")
    with mmap.mmap(vm.fds[0], 4 * PAGE, mmap.MAP_SHARED, mmap.PROT_READ) as memory:
        check(memory[:PAGE] == b"\x5a" * PAGE, "as it was")
    vm.close()
    check(until(lambda: not templates(tool)), "nobody, nothing")
    check("gnomon_template_bytes{template=\"a\"}" not in metrics(tool), "nor in the metrics")
    check(d.end() == 0, "ends")


def saved(folder, *options):
    """An image of a run's memory."""
    path = os.path.join(folder, "base.image")
    done = gnomon(*WORKLOAD, "--save-memory", path, *options)
    check(done.returncode == 0, f"saved: {done.stderr}")
    return path


def saving(folder):
    path = saved(folder)
    st = os.stat(path)
    check(st.st_size == 32 * MIB, "all of its memory")
    check(0 < st.st_blocks * 512 < 31 * MIB, f"without what it did not use: {st.st_blocks}")
    check(stat.S_IMODE(st.st_mode) == 0o600, "its owner's")
    check(os.listdir(folder) == ["base.image"], "and nothing beside it")
    for options, code in ((["--save-memory", "/nonexistent/x"], 3), (["--save-memory", "-"], 2), (["--save-memory", path, "--repeat", "2"], 2),
                          (["--template", "a"], 2), (["--sharing", "s", "--template", "a", "--sharing-domain", "g"], 2),
                          (["--sharing", "s", "--template", "a", "--backing", "2m"], 2), (["--sharing", "s", "--template", ""], 2),
                          (["--sharing", "s", "--control", "s", "--template", "a"], 2), (["--sharing", "/nonexistent/s", "--template", "a"], 3)):
        done = gnomon("random", "--quick", *options)
        check(done.returncode == code and done.stderr.count("\n") == 1, f"{options}: {done.returncode} {done.stderr}")
    failing = gnomon("random", "--mem", "16M", "--size", "64M", "--save-memory", os.path.join(folder, "x"))
    check(failing.returncode == 1 and os.listdir(folder) == ["base.image"], "of a run that fails nothing is saved")


def start_clone(d, name, *options, scheme="ept", workload=WORKLOAD):
    return subprocess.Popen([GNOMON, "run", scheme, *workload, "--audit", "--sharing", d.path, "--name", name, "--template", "base", *options],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end_clone(name, guest):
    out, err = guest.communicate(timeout=300)
    check(guest.returncode == 0, f"{name} ends well: {guest.returncode} {err}")
    return sum_of(out)


def clones(folder):
    """Two VMs over one template at once, the daemon dies meanwhile, and they compute what one does alone. Others do not begin with it."""
    config = EAGER + f"[metrics]\nport = {port_free()}\n" + section("base", saved(folder), "clone-*")
    d = Daemon(folder, config)
    tool = Peer(d.path)
    alone = end_clone("alone", start_clone(d, "clone-0"))
    guests = {name: start_clone(d, name, "--rest", "2") for name in ("clone-1", "clone-2")}
    try:
        vms = until(lambda: len(v := tool.ask("query-vms")["return"]) == 2 and v)
        check(vms and all(vm["template"] == "base" and vm["mechanism"] == "template" and "domain" not in vm for vm in vms), f"who is over it: {vms}")
        check(templates(tool)[("base", False)]["vms"] == 2, "two")
        check(metrics(tool)['gnomon_mechanism_vms{mechanism="template"}'] == 2, "as the metrics say")
        check(until(lambda: any(vm["pages_sharing"] for vm in tool.ask("query-vms")["return"])), "they share the template's pages")
        check(tool.ask("query-sharing")["return"]["saved_bytes"] == 0, "which gives nothing to others")
        stranger = gnomon(*WORKLOAD, "--sharing", d.path, "--name", "stranger", "--template", "base")
        check(stranger.returncode == 3 and stranger.stderr.count("\n") == 1 and "does not name stranger" in stranger.stderr, f"a stranger: {stranger}")
        none = gnomon(*WORKLOAD, "--sharing", d.path, "--name", "clone-3", "--template", "none")
        check(none.returncode == 3 and "no [template none]" in none.stderr, f"what there is not: {none}")
        large = gnomon(*WORKLOAD, "--mem", "64M", "--sharing", d.path, "--name", "clone-3", "--template", "base")
        check(large.returncode == 2 and "32 MiB" in large.stderr and large.stderr.count("\n") == 1, f"too large: {large}")
        d.process.kill()
        d.process.wait()
        time.sleep(0.2)
        check(all(guest.poll() is None for guest in guests.values()), "guests run on without a daemon")
        d = Daemon(folder, config)
        tool = Peer(d.path)
        check(until(lambda: len(tool.ask("query-vms")["return"]) == 2), "and come to the next")
        sums = [end_clone(name, guest) for name, guest in guests.items()]
        check(alone and sums == [alone, alone], f"memory is what it would be: {sums} {alone}")
        check(until(lambda: templates(tool)[("base", False)]["vms"] == 0), "all have left")
    finally:
        for guest in guests.values():
            guest.kill()
    check(d.end() == 0, "ends")


def any_guest(folder):
    """Whatever runs under whichever scheme, in less memory than the image's: self-checks hold on RAM that is not zeros, and memory is the same."""
    d = Daemon(folder, section("base", saved(folder), "*"))
    for workload in ("fork-exec", "demand-zero", "pipeline", "mmap-churn"):
        sums = set()
        for i, scheme in enumerate(("native", "shadow", "ept", "interp")):
            large = ["--large-pages"] if i % 2 and workload == "demand-zero" else []
            guest = start_clone(d, "v", *large, scheme=scheme, workload=[workload, "--quick", "--mem", "24M"])
            sums.add((bool(large), end_clone(f"{workload} {scheme} {large}", guest)))
        check(len(sums) == (2 if workload == "demand-zero" else 1), f"{workload}: {sums}")
    again = os.path.join(folder, "again")
    guest = start_clone(d, "v", "--save-memory", again)
    first = end_clone("saves", guest)
    check(os.stat(again).st_size == 32 * MIB, "a clone's memory is saved as any")
    reload(d, section("base", again, "*"))
    check(until(lambda: d.logged("reloaded")), "reloaded")
    check(first == end_clone("over its clone's", start_clone(d, "v")), "what a guest does again it has already")
    check(d.end() == 0, "ends")


run_tests((configuration, given_to_whom_it_names, both_are_refused, hostile, reloads, saving, clones, any_guest))
