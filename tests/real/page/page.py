"""The page for people, in a real browser."""

import contextlib
import fcntl
import http.server
import json
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
import time
import urllib.parse
import urllib.request

from support import SIDEKEY, Process, Sidekey, adopt, check, figure, free_port

ADMIN_TOKEN = "the-admin-token-of-the-page"
SECRET = "the-secret-of-a-client"
# What a token endpoint might say to do harm to who reads it.
HOSTILE = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>\"'& \u202egnp.exe"
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("SIDEKEY_")}


class Peer(http.server.BaseHTTPRequestHandler):
    """Token endpoints under /token, APIs everywhere else."""

    protocol_version = "HTTP/1.1"
    lifetimes = {}

    def log_message(self, *_):
        pass

    def say(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        self.say({"missing": 404, "broken": 500}.get(path.rsplit("/", 1)[-1], 200), {"ok": True})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        kind = self.path.removeprefix("/token/").split("/")[0]
        answers = {
            "dead": (400, {"error": "invalid_client", "error_description": HOSTILE}),
            "failing": (503, {"error": "temporarily_unavailable", "error_description": "maintenance until noon"}),
        }
        lifetime = int(kind) if kind.isdigit() else 3600
        self.say(*answers.get(kind, (200, {"access_token": "t", "token_type": "Bearer", "expires_in": lifetime})))


def client(name, peer, kind, clients=0):
    """A credential of an API client, or of many."""
    who = f'client_id = "id"\nclient_secret = {{ value = "{SECRET}" }}'
    if clients:
        each = "".join(f'{{ name = "team-{n:02}", client_id = "{n}", client_secret = {{ value = "{SECRET}" }} }},' for n in range(clients))
        who = f'clients = [{each}]\nstrategy = "spread"'
    return f'[credential.{name}]\ntype = "client_credentials"\ntoken_url = "{peer}/token/{kind}"\n{who}\n'


def route(name, peer, credential, provider="generic"):
    carries = f'"{credential}"' if credential else "false"
    return f'[route.{name}]\nprovider = "{provider}"\npath = "/{name}"\nupstream = "{peer}/{name}"\ncredential = {carries}\n'


def login(name, peer, admin, more=""):
    return f"""[credential.{name}]
type = "authorization_code"
issuer = "{peer}"
auth_url = "{peer}/authorize"
token_url = "{peer}/token/login"
client_id = "app"
auth_method = "none"
redirect_uri = "http://127.0.0.1:{admin}/callback"
scope = ["openid", "offline_access"]
{more}
"""


def configurations(peer, ports):
    """What is shown: a configuration for each state."""
    def head(name):
        return f"""[server]
listen = "127.0.0.1:0"
admin = "127.0.0.1:{ports[name]}"
admin_token = {{ value = "{ADMIN_TOKEN}" }}
[store]
type = "memory"
"""
    usual = route("aura", peer, "aura", "aura") + client("aura", peer, "short") + route("open", peer, None)
    many = "".join(route(f"service-{n:02}", peer, ["crowd", "crowd", "lost", "slow"][n % 4]) for n in range(30))
    many += client("crowd", peer, "3600", 40) + client("lost", peer, "dead", 4) + client("slow", peer, "failing", 6)
    return {
        "well": head("well") + route("aura", peer, "aura", "aura") + client("aura", peer, "30") + route("graph", peer, "graph", "neo4j")
        + f'[credential.graph]\ntype = "basic"\nusername = "neo4j"\npassword = {{ value = "{SECRET}" }}\n' + route("open", peer, None),
        "dead": head("dead") + usual + route("billing", peer, "billing") + client("billing", peer, "dead"),
        "login": head("login") + usual + route("neon", peer, "neon", "neon") + login("neon", peer, ports["login"])
        + 'account_header = "Sidekey-Account"\n' + route("wiki", peer, "wiki") + login("wiki", peer, ports["login"]),
        "many": head("many") + many,
    }


class Peers(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        """An instance that ends lets go of its connections."""


class Told(Process):
    """The browser's program: it prints checks, and asks for what only this one can do."""

    def __init__(self, told, script):
        super().__init__("node", script, json.dumps(told), stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def follow(self, obey):
        for line in self.child.stdout:
            if line.startswith("please "):
                obey(line.split()[1:])
                self.child.stdin.write("done\n")
                self.child.stdin.flush()
            else:
                adopt(line)
        return self.child.wait(30)


def suite_page(directory, tools):
    """Headless Chromium: light, dark, narrow; a dead credential, a login that is needed, 50 accounts; axe; the keyboard."""
    shots = pathlib.Path(os.environ.get("SHOTS", directory / "shots")).resolve()
    shots.mkdir(parents=True, exist_ok=True)
    packages = tools.packages("page", "package.json", "page.mjs")
    server = Peers(("127.0.0.1", 0), Peer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    peer = f"http://127.0.0.1:{server.server_address[1]}"
    ports = {name: free_port() for name in ["well", "dead", "login", "many"]}
    configs = configurations(peer, ports)
    with contextlib.ExitStack() as all_of_them:
        running = {}

        def start(name):
            folder = directory / name
            folder.mkdir(exist_ok=True)
            running[name] = (stack := contextlib.ExitStack()), stack.enter_context(Sidekey(folder, configs[name], env=ENVIRONMENT))
            all_of_them.push(stack)

        def obey(words):
            what, name, *rest = words
            if what == "stop":
                running[name][0].close()
            elif what == "start":
                start(name)
            elif what in ("spoil", "mend"):
                text = configs[name] if what == "mend" else configs[name] + "[route.nonsense]\n"
                running[name][1].file.write_text(text)
                running[name][1].child.send_signal(signal.SIGHUP)
            elif what == "ask":
                for path in rest:
                    ask(running[name][1].url + path)

        for name in configs:
            start(name)
        told = {"chromium": tools.chromium, "shots": str(shots), "token": ADMIN_TOKEN, "hostile": HOSTILE, "secrets": [ADMIN_TOKEN, SECRET],
                "admin": {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}}
        with Told(told, packages / "page.mjs") as browser:
            status = browser.follow(obey)
        check("page, the browser gets to the end", status == 0, f"exit status {status}")
        terminal(directory / "dead" / "sidekey.toml", obey)
    server.shutdown()
    figure(f"{len(list(shots.glob('*.png')))} screenshots in {shots}")


class Terminal:
    """`sidekey status --watch` on a terminal of 70 columns and 24 lines."""

    def __init__(self, file, **environment):
        self.near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 70, 0, 0))
        words = [SIDEKEY, "status", "--watch", "-c", str(file)]
        self.child = subprocess.Popen(words, stdin=far, stdout=far, stderr=subprocess.DEVNULL,
                                      env={**ENVIRONMENT, "TERM": "xterm-256color", **environment})
        os.close(far)
        self.text = ""

    def read_until(self, pattern, seconds=15):
        """Everything up to a pattern that comes from here on; is it there in time?"""
        since, deadline = len(self.text), time.monotonic() + seconds
        while not re.search(pattern, self.text[since:]) and (left := deadline - time.monotonic()) > 0:
            if select.select([self.near], [], [], left)[0]:
                try:
                    self.text += os.read(self.near, 65536).decode(errors="replace")
                except OSError:
                    break
        return bool(re.search(pattern, self.text[since:]))

    def end(self):
        self.child.send_signal(signal.SIGINT)
        self.read_until("there is no such text", 3)
        status = self.child.wait(10)
        os.close(self.near)
        return status


def terminal(file, obey):
    """What `status --watch` does to a terminal."""
    frame = r"\x1b\[H[^\0]*?\x1b\[J"
    seen = Terminal(file)
    check("status --watch draws again and again", all(seen.read_until(frame) for _ in range(3)), seen.text)
    check("status --watch draws in place, on the other screen", seen.text.startswith("\x1b[?1049h"), repr(seen.text[:40]))
    check("status --watch has colours there", "\x1b[1;31mdead\x1b[0m" in seen.text, seen.text)
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", re.findall(frame, seen.text)[-1]).splitlines()
    check("status --watch fits the terminal", max(map(len, shown)) <= 70 and len(shown) <= 24, shown)
    obey(["stop", "dead"])
    check("status --watch tells when the instance is gone", seen.read_until("not reachable for"), seen.text[-2000:])
    obey(["start", "dead"])
    check("status --watch recovers", seen.read_until(r"\x1b\[Hsidekey"), seen.text[-2000:])
    check("status --watch ends well by Ctrl-C", seen.end() == 0)
    left = seen.text.rpartition("\x1b[?1049l")[2]
    check("status --watch gives the first screen back, and what it showed last", left.startswith("sidekey"), repr(seen.text[-2000:]))
    plain = Terminal(file, NO_COLOR="1")
    plain.read_until(frame)
    plain.end()
    check("status --watch has no colours with NO_COLOR", "dead" in plain.text and not re.search(r"\x1b\[[\d;]*m", plain.text), plain.text)


def ask(url):
    """One request through sidekey, whatever comes of it."""
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=10) as answer:
        answer.read()


SUITES = {"page": suite_page}
