# SPDX-License-Identifier: MIT
"""daemons.py - a daemon under test: its process and its peers, for the tests of each."""
import array
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

passed = failed = 0


def check(holds, what):
    global passed, failed
    if holds:
        passed += 1
    else:
        failed += 1
        print("FAIL:", what)


# What is to happen happens in milliseconds; so long it may take where the machine has other work.
LIMIT_S = 30


def until(condition, seconds=LIMIT_S):
    """What @condition says as soon as it is true; or what it said at the end."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return value


class Peer:
    """One connection."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(LIMIT_S)
        self.socket.connect(path)
        self.buffer = b""
        self.events = []
        self.greeting = self.read()

    def read(self):
        """One message; TimeoutError."""
        while b"\n" not in self.buffer:
            got = self.socket.recv(65536)
            if not got:
                raise ConnectionError("hung up")
            self.buffer += got
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)

    def write(self, message):
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def ask(self, command, **arguments):
        self.socket.settimeout(LIMIT_S)
        self.write({"execute": command, "arguments": arguments, "id": 1})
        while True:
            answer = self.read()
            if "event" not in answer:
                return answer
            self.events.append(answer)

    def report(self, **data):
        self.write({"event": "REPORT", "data": data})

    def event(self, name, seconds=LIMIT_S):
        """The next event of that name, or None."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for i, event in enumerate(self.events):
                if event["event"] == name:
                    return self.events.pop(i)["data"]
            self.socket.settimeout(max(0.01, end - time.monotonic()))
            try:
                self.events.append(self.read())
            except OSError:
                return None
        return None

    def close(self):
        """As a VM that ends in order: we live on, so that has to be said."""
        self.ask("unregister")
        self.socket.close()


class PeerWithDescriptors(Peer):
    """What answers bring along is in fds."""

    def __init__(self, path):
        self.fds = []
        super().__init__(path)

    def read(self):
        while b"\n" not in self.buffer:
            got, control, _, _ = self.socket.recvmsg(65536, socket.CMSG_SPACE(16))
            if not got:
                raise ConnectionError("hung up")
            for level, kind, data in control:
                check(level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS, "descriptors, and nothing else")
                self.fds += list(array.array("i", data))
            self.buffer += got
        return super().read()


class FakeDaemon:
    """What a program finds where it looks for a daemon: one connection, and what we say over it. As a context, it is gone at the end."""

    def __init__(self, path):
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(path)
        self.listening.listen(1)
        self.listening.settimeout(LIMIT_S)
        self.peer = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.hang_up()
        self.listening.close()

    def meet(self, *capabilities):
        self.peer = self.listening.accept()[0]
        self.peer.settimeout(LIMIT_S)
        self.lines = self.peer.makefile("rw")
        self.say({"gnomon": {"version": {"product": "fake", "release": "0", "protocol": 1}, "capabilities": list(capabilities)}})

    def say(self, message):
        self.lines.write(json.dumps(message) + "\n")
        self.lines.flush()

    def hear(self):
        """The next message; None: they hung up."""
        line = self.lines.readline()
        return json.loads(line) if line else None

    def report(self):
        """What the next REPORT says; None: there is none any more."""
        while message := self.hear():
            if message.get("event") == "REPORT":
                return message["data"]
        return None

    def hang_up(self):
        if self.peer:
            self.lines.close()
            self.peer.close()
            self.peer = None


class Daemon:
    program = None  # whose tests these are
    started = []

    def __init__(self, folder, config, *options, files=None):
        """@files: soft and hard limit of its descriptors."""
        self.folder, self.path = folder, os.path.join(folder, "s")
        self.ini = os.path.join(folder, "ini")
        self.write(config)
        self.err = open(os.path.join(folder, "err"), "w+")
        self.process = subprocess.Popen([self.program, "--config", self.ini, *options], stderr=self.err, stdout=self.err,
                                        preexec_fn=files and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, files)))
        Daemon.started.append(self.process)
        until(self.answers)

    def answers(self):
        try:
            Peer(self.path).socket.close()
            return True
        except OSError:
            return False

    def write(self, config):
        with open(self.ini, "w") as file:
            file.write(f"[daemon]\nsocket = {self.path}\nevent_log = {self.folder}/log\n" + config)

    def said(self):
        self.err.seek(0)
        return self.err.read()

    def logged(self, event):
        with open(os.path.join(self.folder, "log")) as file:
            return [line for line in map(json.loads, file) if line["event"] == event]

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(LIMIT_S)


def run(*arguments):
    done = subprocess.run([Daemon.program, *arguments], capture_output=True, text=True, timeout=LIMIT_S)
    return done.returncode, done.stdout + done.stderr


def check_configuration(folder, sample, wrong):
    """The @sample in packaging/ is right; each of the @wrong texts is refused with one line that says what is wanted."""
    path = os.path.join(os.path.dirname(__file__), "../../packaging", sample)
    check(run("--check-config", "-c", path)[0] == 0, "the sample configuration is right")
    for text, wanted in wrong:
        path = os.path.join(folder, "wrong.ini")
        with open(path, "w") as file:
            file.write(text)
        for options in (["--check-config"], []):
            code, said = run(*options, "-c", path)
            check(code == 2 and wanted in said and said.count("\n") == 1, f"{text!r}: {code} {said!r}")
    check(run("-c", "/nonexistent")[0] == 2, "no configuration")
    check(run("--frobnicate")[0] == 2 and run("stray")[0] == 2, "wrong use")


def port_free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def metrics(tool):
    port = tool.ask("query-sharing")["return"]["metrics_port"]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LIMIT_S) as page:
        return {line.split()[0]: float(line.split()[1]) for line in page.read().decode().splitlines() if line[0] != "#"}


def run_tests(tests):
    """Each in a folder of its own. Prints the counts, and exits."""
    for test in tests:
        with tempfile.TemporaryDirectory() as where:
            try:
                test(where)
            except Exception as error:  # the count must be printed whatever happens
                check(False, f"{test.__name__}: {error!r}")
            finally:
                for process in Daemon.started:
                    process.kill()  # one that has ended does not mind
                    process.wait()
    print(f"{passed} passed, {failed} failed")
    sys.exit(failed != 0)
