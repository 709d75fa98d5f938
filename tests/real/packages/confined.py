"""sidekey in an empty root, as an unprivileged user. The suite `static` runs this in namespaces of its own for mounts and
the network, so that nothing here reaches the machine; it prints its checks for the suite to take over.

    confined.py BINARY DIRECTORY CA CERTIFICATE KEY STRACE
"""

import contextlib
import fcntl
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import support
from support import ROOT, Process, check, figure

NAME, USER, SECRET = "upstream.example", 65532, "s3cret-of-the-upstream"
UNIT = ROOT / "deploy" / "systemd" / "sidekey.service"


def main(binary, directory, ca, certificate, key, strace):
    directory = pathlib.Path(directory)
    loopback_up()
    with Names() as names, Upstream(certificate, key) as upstream:
        alone(root(directory / "alone", binary), upstream, names)
        for way in ["DNS", "/etc/hosts"]:
            names.known = way == "DNS"
            trace = directory / "trace" if way == "DNS" else None
            as_in_a_pod(directory / f"pod by {way.strip('/').replace('/', '-')}", binary, ca, upstream, way,
                        [strace, "-f", "-qq", "-o", trace] if trace else [])
            if trace:
                within_the_unit(trace)


def alone(root, upstream, names):
    """The binary and nothing else; the environment is the configuration."""
    environment = {"NEO4J_URI": f"https://{NAME}:{upstream.port}", "NEO4J_USERNAME": "neo4j", "NEO4J_PASSWORD": SECRET}
    with contextlib.suppress(OSError):
        (root / "new").touch()
    check("alone, the root is read-only, and holds the binary alone", os.listdir(root) == ["sidekey"], os.listdir(root))
    with Confined(root, environment) as sidekey:
        status = pathlib.Path(f"/proc/{sidekey.child.pid}/status").read_text()
        who = [re.search(rf"{field}:[ \t]*(.*)", status)[1].split() for field in ["Uid", "Gid", "Groups", "CapEff",
                                                                               "NoNewPrivs"]]
        check("alone, it runs as an unprivileged user", who == [[str(USER)] * 4] * 2 + [[], ["0" * 16], ["1"]], who)
        for condition in ["live", "ready"]:
            ran = sidekey.command("wait", "--for", condition, "--timeout", "10s")
            check(f"alone, `sidekey wait --for {condition}` finds it", ran.returncode == 0, ran.stderr)
        asked = names.asked
        code, _, body = sidekey.get("/")
        check("alone, it asks for the upstream's name", names.asked > asked, names.asked)
        # Not: that there are no roots at all.
        check("alone, by the roots that are built in, a private certificate does not verify",
              code == 502 and "UnknownIssuer" in sidekey.said(), f"{code} {body} {sidekey.said()}")
        check("alone, and nothing reached the upstream", upstream.seen == [], upstream.seen)
        figure(f"VmRSS, VmHWM {support.Sidekey.memory(sidekey)} kB")
    ran = sidekey.command("demo")
    check("alone, the demo is not in it", ran.returncode == 2 and "demo" in ran.stderr, f"{ran.returncode} {ran.stderr}")


def as_in_a_pod(path, binary, ca, upstream, way, wrapper):
    """With what a pod mounts: a configuration, a certificate, a secret."""
    files = {
        "etc/sidekey/sidekey.toml": f"""
[server]
health = "127.0.0.1:7602"
[route.graph]
upstream = "https://{NAME}:{upstream.port}"
credential = {{ type = "basic", username = "neo4j", password = {{ file = "/run/secrets/sidekey/password" }} }}
tls = {{ ca = "/etc/sidekey/ca.pem" }}
""",
        "etc/sidekey/ca.pem": pathlib.Path(ca).read_text(),
        "run/secrets/sidekey/password": SECRET + "\n",
    }
    if way == "/etc/hosts":
        files["etc/hosts"] = f"127.0.0.1 localhost\n127.0.0.1 {NAME}\n"
    label = f"as in a pod, names by {way}"
    before = len(upstream.seen)
    with Confined(root(path, binary, files), {}, wrapper) as sidekey:
        ran = sidekey.command("check")
        check(f"{label}, `sidekey check` has nothing to say", ran.returncode == 0 and not ran.stderr, ran.stderr)
        code, headers, body = sidekey.get("/db?x=1", {"Authorization": "Bearer of-the-caller"})
        # base64 of neo4j:s3cret-of-the-upstream
        wanted = {"path": "/db?x=1", "host": f"{NAME}:{upstream.port}",
                  "authorization": "Basic bmVvNGo6czNjcmV0LW9mLXRoZS11cHN0cmVhbQ=="}
        check(f"{label}, it forwards over TLS", (code, body) == (200, json.dumps(wanted)),
              f"{code} {headers} {body} {sidekey.said()}")
        check(f"{label}, once", len(upstream.seen) == before + 1, upstream.seen)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", 7602, timeout=10)) as probe:
            probe.request("GET", "/readyz", headers={"Host": "10.0.0.1:7602"})
            check(f"{label}, the probes' listener says that it is ready", probe.getresponse().status == 200)


def within_the_unit(trace):
    """systemd cannot be run here, but what it would let through can be compared with what was called."""
    if not shutil.which("systemd-analyze"):
        figure("left out: no systemd-analyze to say what the unit's filter lets through")
        return
    allowed = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", UNIT.read_text(), re.M):
        calls = set().union(*(members(word) for word in line.lstrip("~").split()))
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    lines = trace.read_text().splitlines()
    # Before it, privileges were given up; that is not ours.
    begin = next(number for number, line in enumerate(lines) if 'execve("/sidekey"' in line)
    called = {found[1] for line in lines[begin + 1:] if (found := re.match(r"\d+ +(?:<\.\.\. )?(\w+)", line))}
    called -= {"exited", "killed"}
    check("it makes no system call that its systemd unit forbids", called and not called - allowed,
          f"{sorted(called - allowed)} of {sorted(called)}")
    figure(f"{len(called)} kinds of system calls")


def members(group):
    """A group's system calls, or those of the groups in it."""
    if not group.startswith("@"):
        return {group}
    listed = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    found = [line.strip() for line in listed.stdout.splitlines()[1:]]
    return set().union(*(members(word) for word in found if word and not word.startswith("#")))


def root(path, binary, files=()):
    """A directory with the binary and these files, which nobody can write to."""
    path.mkdir()
    shutil.copy(binary, path / "sidekey")
    (path / "sidekey").chmod(0o555)
    for name, text in dict(files).items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        if "secrets" in name:
            os.chown(file, 0, USER)
            file.chmod(0o440)
    for options in [["--bind", path, path], ["-o", "remount,bind,ro,nosuid,nodev", path]]:
        subprocess.run(["mount", *options], check=True)
    return path


class Confined(Process):
    """sidekey in such a root."""

    def __init__(self, root, environment, wrapper=()):
        self.environment = environment
        self.words = ["setpriv", "--no-new-privs", "chroot", f"--userspec={USER}:{USER}", "--groups=", root, "/sidekey"]
        self.log = root.with_name(root.name + ".log")
        with self.log.open("w") as log:
            super().__init__(*wrapper, *self.words, "run", quiet=True, stdout=subprocess.PIPE, stderr=log,
                             env=environment | {"PATH": os.environ["PATH"]})
        for line in self.child.stdout:
            if line.startswith("route "):
                break
        else:
            raise RuntimeError(f"sidekey does not start: {self.said()}")
        threading.Thread(target=self.child.stdout.read, daemon=True).start()

    def command(self, *words):
        """Another command of sidekey's, in the same root and with the same environment."""
        return subprocess.run([*self.words, *words], env=self.environment | {"PATH": os.environ["PATH"]}, text=True,
                              capture_output=True, timeout=30)

    def get(self, path, headers={}):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", 7600, timeout=20)) as caller:
            caller.request("GET", path, headers=headers)
            answer = caller.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode()

    def said(self):
        return self.log.read_text()

    def __exit__(self, *cause):
        # strace passes no signal on.
        children = pathlib.Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()
        for process in children or [self.child.pid]:
            os.kill(int(process), signal.SIGTERM)
        self.child.wait(40)
        check("sidekey ends well when it is told to", self.child.returncode == 0, self.said())
        check("nothing in sidekey panicked", "panicked" not in self.said(), self.said())


class Upstream:
    """HTTPS, and what arrived there."""

    def __init__(self, certificate, key):
        self.seen = seen = []

        class Answers(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                seen.append({"path": self.path, "host": self.headers["host"],
                             "authorization": self.headers["authorization"]})
                body = json.dumps(seen[-1]).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                """A peer that does not trust the certificate is what one of the checks is about."""

        self.server = Server(("127.0.0.1", 0), Answers)
        self.port = self.server.server_port
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        # The handshake in the thread of its connection, not in that of the listener.
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()


class Names:
    """A name server, where one is asked for that no /etc/resolv.conf names: on this machine."""

    def __init__(self):
        self.known, self.asked = True, 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))

    def __enter__(self):
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                question, peer = self.socket.recvfrom(512)
                self.socket.sendto(self.answer(question), peer)

    def answer(self, question):
        """RFC 1035 §4.1: a header, the question again, and for our name's A one record that points back to it."""
        end = question.index(b"\0", 12) + 5
        name, kind = question[12:end - 4], struct.unpack("!H", question[end - 4:end - 2])[0]
        ours = self.known and name == b"\x08upstream\x07example\x00"
        self.asked += ours
        record = struct.pack("!HHHIH4s", 0xC00C, 1, 1, 5, 4, socket.inet_aton("127.0.0.1")) if ours and kind == 1 else b""
        header = question[:2] + struct.pack("!HHHHH", 0x8580 if ours else 0x8583, 1, bool(record), 0, 0)
        return header + question[12:end] + record

    def __exit__(self, *_):
        self.socket.close()


def loopback_up():
    """A new network namespace's loopback is down."""
    with socket.socket() as any_socket:
        request = struct.pack("16sh14x", b"lo", 0x1)  # IFF_UP
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS


if __name__ == "__main__":
    main(*sys.argv[1:])
