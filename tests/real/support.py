"""What every suite needs: telling what was found, and children that end with it."""

import functools
import importlib.util
import json
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
SIDEKEY = os.environ.get("SIDEKEY", str(TARGET / "release" / "sidekey"))
EXAMPLES = TARGET / "debug" / "examples"
PACKAGES = ["requests", "neo4j>=6.4", "aiohttp", "urllib3", "websockets", "grpcio", "h2"]

# Most suites never ask the admin listener, and its usual port may be taken.
WITHOUT_ADMIN = {**os.environ, "SIDEKEY_ADMIN": "false"}

passed, failed = 0, []


def say(text):
    print(text, flush=True)


def figure(text):
    """Something worth knowing that is neither right nor wrong."""
    say(f"        {text}")


def free_port():
    """A port that is free, from below those that the system gives to connections: none of those takes it meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def check(name, condition, found=""):
    global passed
    if condition:
        passed += 1
        say(f"ok      {name}")
    else:
        failed.append(name)
        say(f"FAILED  {name}: {found}")
    return condition


def adopt(output):
    """Takes over the checks that another program printed in the same manner."""
    for line in output.splitlines():
        if line.startswith("ok      "):
            check(line[8:], True)
        elif line.startswith("FAILED  "):
            check(line[8:].split(": ", 1)[0], False, line[8:].partition(": ")[2])


def command(*words, **options):
    """Runs a command, having printed it."""
    say("$ " + shlex.join(map(str, words)))
    return subprocess.run([str(word) for word in words], text=True, **options)


def number(name, otherwise):
    """A number that the environment may set."""
    return int(os.environ.get(name, otherwise))


def load(*arguments):
    """Runs the load generator; what it found."""
    ran = command(EXAMPLES / "load", *arguments, stdout=subprocess.PIPE, check=True)
    found = json.loads(ran.stdout)
    rate = found["requests"] / found["seconds"]
    say(f"        {found['requests']} requests in {found['seconds']:.1f} s, {rate:.0f}/s, "
        f"{found['milliseconds']} ms, {found['statuses']}")
    for body, count in {**found["bodies"], **found["broken"]}.items():
        say(f"        {count} × {body}")
    return found


def all_well(found):
    return not found["broken"] and found["statuses"] == {"200": found["requests"]} and found["requests"] > 0


class Process:
    """A child that ends with the suite."""

    def __init__(self, *words, quiet=False, **options):
        if not quiet:
            say("$ " + shlex.join(map(str, words)))
        self.child = subprocess.Popen([str(word) for word in words], text=True, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.child.poll() is not None:
            return
        # A stopped process does not end.
        self.child.send_signal(signal.SIGCONT)
        self.child.terminate()
        try:
            self.child.wait(40)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Sidekey(Process):
    """A running sidekey."""

    def __init__(self, directory, config, *arguments, quiet=False, env=None, wrapper=()):
        self.file = pathlib.Path(directory) / "sidekey.toml"
        self.file.write_text(config)
        self.log_file = pathlib.Path(directory) / "sidekey.log"
        self.log = self.log_file.open("a+")
        super().__init__(*wrapper, SIDEKEY, "run", "-c", self.file, *arguments, quiet=quiet, env=env or WITHOUT_ADMIN,
                         stdout=subprocess.PIPE, stderr=self.log)
        self.addresses = []
        for line in self.child.stdout:
            if found := re.match(r"listening on (?:https://)?(127\.0\.0\.1:\d+)", line):
                self.addresses.append(found[1])
            elif line.startswith("route "):
                break
        if not self.addresses:
            self.child.kill()
            self.child.wait()
            raise RuntimeError(f"sidekey does not start: {self.said()}")
        # Nobody reads the rest, and a full pipe would stop it.
        threading.Thread(target=self.child.stdout.read, daemon=True).start()

    @property
    def url(self):
        return "http://" + self.addresses[0]

    def said(self):
        """Its whole log."""
        return self.log_file.read_text()

    def files(self):
        """How many files it has open, sockets among them."""
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def memory(self):
        """KiB resident now, and at most so far."""
        status = pathlib.Path(f"/proc/{self.child.pid}/status").read_text()
        return [int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) for name in ("VmRSS", "VmHWM")]

    def __exit__(self, *cause):
        super().__exit__(*cause)
        self.log.close()
        log = self.said()
        if "panicked" in log or any(cause):
            say("the log of sidekey:\n" + log[-4000:])
        check("sidekey ends well when it is told to", self.child.returncode == 0, self.child.returncode)
        check("nothing in sidekey panicked", "panicked" not in log, "see its log above")


class Standins(Process):
    """Aura, Neo4j and Neon, in one process of their own."""

    def __init__(self, *arguments):
        super().__init__(EXAMPLES / "standins", *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.urls = json.loads(self.child.stdout.readline())

    def tell(self, line):
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def stats(self):
        return self.tell("stats")


class Tools:
    """What a suite needs installed, installed when the first one asks for it."""

    def __init__(self, temporary):
        self.temporary = pathlib.Path(temporary)

    @functools.cached_property
    def python(self):
        """A Python with the packages of the suites."""
        return self.environment("venv", PACKAGES)

    def environment(self, name, packages):
        """A Python with these packages; other programs that they bring stand beside it."""
        python = self.temporary / name / "bin" / "python"
        # Debian's Python comes without what makes virtual environments.
        if not importlib.util.find_spec("ensurepip"):
            debian("python3-venv")
        command(sys.executable, "-m", "venv", python.parents[1], check=True)
        words = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        command(python, *words, check=True)
        return python

    @functools.cached_property
    def node(self):
        """A directory with the login suites' scripts and their packages."""
        return self.packages("logins", "package.json", "server.mjs", "browser.mjs")

    @functools.cached_property
    def clients(self):
        """A directory with the scripts of clients, and the libraries that they run."""
        return self.packages("clients", "package.json", "neon.mjs", "query_api_wrapper.mjs")

    def packages(self, group, *files):
        """A directory with scripts of a group of suites and the packages of Node that they name."""
        if not (shutil.which("node") and shutil.which("npm")):
            debian("nodejs", "npm")
        node = self.temporary / f"node-{group}"
        node.mkdir()
        for file in files:
            shutil.copy(ROOT / "tests" / "real" / group / file, node)
        words = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error", "--prefix", node]
        command("npm", *words, check=True, stdout=subprocess.DEVNULL)
        return node

    @functools.cached_property
    def redis(self):
        return self.program("redis-server", "redis-server")

    @functools.cached_property
    def chromium(self):
        return self.program("chromium", "chromium")

    @staticmethod
    def program(name, package):
        """A program's path; Debian's package of it is installed where it is missing."""
        if not shutil.which(name):
            debian(package)
        return shutil.which(name)


def debian(*packages):
    """Installs packages of the system."""
    command("apt-get", "update", "-qq", check=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command("apt-get", "install", "-qq", "-y", "--no-install-recommends", *packages, check=True, env=quiet,
            stdout=subprocess.DEVNULL)
