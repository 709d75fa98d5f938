"""Ory Hydra, built from the Go module proxy; its pages of login and consent; an API; and what watches its token endpoint.

It has what the suites with logins ask of their server (logins/lab.py): issuer, api, clients.
"""

import base64
import collections
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse

from support import Process, Tools, debian, figure, free_port, say
from traffic.lab import until

SOURCES = pathlib.Path(__file__).parent
STARTS_WITHIN = 60
SCOPES = "openid offline_access offline"

Seen = collections.namedtuple("Seen", "grant token replica at status error description")


def build(directory):
    """Hydra's program. It takes some minutes on a new machine; Go keeps what it has compiled (go env GOCACHE)."""
    if not shutil.which("go"):
        debian("golang-go")
    # Its SQLite is compiled from C.
    Tools.program("gcc", "gcc")
    folder = pathlib.Path(directory) / "hydra-source"
    folder.mkdir()
    for name in ["go.mod", "main.go"]:
        shutil.copy(SOURCES / name, folder)
    began = time.monotonic()
    # Its own go.mod decides the versions of all else; -mod=mod writes down which they are.
    environment = {**os.environ, "GOFLAGS": "-mod=mod -buildvcs=false", "CGO_ENABLED": "1"}
    words = ["go", "build", "-tags", "sqlite,sqlite_omit_load_extension", "-o", "hydra", "."]
    say("$ " + " ".join(words))
    for step in [["go", "mod", "download", "github.com/ory/hydra/v2"], words]:
        subprocess.run(step, cwd=folder, env=environment, check=True, stderr=subprocess.DEVNULL)
    figure(f"Hydra built in {time.monotonic() - began:.0f} s")
    return folder / "hydra"


class Engine:
    """A running Hydra, with clients for each way to show who they are."""

    def __init__(self, program, directory, redirects, access_ttl=2, extra=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir()
        self.public, self.admin = free_port(), free_port()
        self.front = serve(self, Front)
        self.pages = serve(self, Pages)
        self.issuer, self.api = f"http://127.0.0.1:{self.front.server_port}/", f"http://127.0.0.1:{self.pages.server_port}"
        self.seen, self.lock, self.tokens, self.known = [], threading.Lock(), {}, {}
        # Answers to refreshes that are still to be lost on their way, and how long each waits before it leaves, in seconds.
        self.lose, self.delay = 0, 0.0
        self.ttl = access_ttl
        config = {
            "dsn": f"sqlite://{self.directory}/hydra.sqlite?_fk=true&_journal_mode=WAL&_busy_timeout=10000",
            "serve": {"public": {"host": "127.0.0.1", "port": self.public}, "admin": {"host": "127.0.0.1", "port": self.admin}},
            "urls": {"self": {"issuer": self.issuer, "public": self.issuer},
                     "login": f"{self.api}/login", "consent": f"{self.api}/consent"},
            "secrets": {"system": [secrets.token_hex(16)]},
            "ttl": {"access_token": f"{access_ttl}s"}, "log": {"level": "warn"}, "sqa": {"opt_out": True}, **(extra or {}),
        }
        file = self.directory / "hydra.json"
        file.write_text(json.dumps(config))
        self.log = (self.directory / "hydra.log").open("w")
        subprocess.run([str(program), "migrate", "sql", "-e", "--yes", "-c", str(file)], check=True, stdout=self.log,
                       stderr=self.log, env={**os.environ, "DSN": config["dsn"]})
        self.process = Process(program, "serve", "all", "--dev", "-c", file, stdout=self.log, stderr=self.log)
        if not until(self.ready, seconds=STARTS_WITHIN, pause=0.1):
            self.__exit__()
            raise RuntimeError("Hydra does not start: " + (self.directory / "hydra.log").read_text()[-3000:])
        self.clients = self.register(redirects)

    def ready(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return ask(self.admin, "GET", "/health/ready")[0] == 200
        return False

    def register(self, redirects):
        """Clients as lab.configuration knows them."""
        key = self.directory / "key.pem"
        for words in [["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", key]]:
            subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)
        modulus = subprocess.run(["openssl", "rsa", "-in", str(key), "-noout", "-modulus"], check=True, capture_output=True,
                                 text=True).stdout.strip().partition("=")[2]
        jwk = {"kty": "RSA", "kid": "key-1", "use": "sig", "alg": "RS256", "e": "AQAB", "n": b64(bytes.fromhex(modulus))}
        kinds = {
            "post": ("client_secret_post", {"client_secret": "post-" + secrets.token_hex(8)}),
            # What needs encoding before it goes into Basic (RFC 6749 §2.3.1).
            "basic": ("client_secret_basic", {"client_secret": "b%c+ /:&=ä" + secrets.token_hex(8)}),
            "none": ("none", {}),
            "RS256": ("private_key_jwt", {"jwks": {"keys": [jwk]}, "token_endpoint_auth_signing_alg": "RS256"}),
        }
        clients = {}
        for name, (method, more) in kinds.items():
            grants = ["authorization_code", "refresh_token", *(["client_credentials"] if method != "none" else [])]
            status, found = ask(self.admin, "POST", "/admin/clients", {
                "client_id": f"client-{name}", "redirect_uris": redirects, "grant_types": grants,
                "response_types": ["code"], "scope": SCOPES, "token_endpoint_auth_method": method, **more})
            if status != 201:
                raise RuntimeError(f"client {name}: {status} {found}")
            clients[name] = {"client_id": f"client-{name}", **({"client_secret": more["client_secret"]}
                                                               if "client_secret" in more else {})}
        clients["RS256"].update(private_key=key.read_text(), key_id="key-1", key_algorithm="RS256")
        return clients

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.__exit__()
        for server in [self.front, self.pages]:
            server.shutdown()
            server.server_close()
        self.log.close()

    def refreshes(self):
        """What was presented at the token endpoint."""
        with self.lock:
            return [seen for seen in self.seen if seen.grant == "refresh_token"]

    def newest(self):
        """The refresh token that was given last."""
        with self.lock:
            return self.tokens[self.last]

    def repeats(self):
        """Refresh tokens that were presented more than once."""
        counts = collections.Counter(seen.token for seen in self.refreshes())
        return {token: count for token, count in counts.items() if count > 1}

    def errors(self):
        """What the token endpoint answered other than tokens."""
        with self.lock:
            return [(seen.grant, seen.status, seen.error, seen.description) for seen in self.seen if seen.status != 200]

    def token(self, form, client="post", **more):
        """A token request of our own, straight to Hydra."""
        known = self.clients[client]
        form = {**form, "client_id": known["client_id"], "client_secret": known["client_secret"], **more}
        return ask(self.public, "POST", "/oauth2/token", urllib.parse.urlencode(form),
                   {"Content-Type": "application/x-www-form-urlencoded"})

    def introspect(self, token):
        """What Hydra knows of a token; for a moment, what it has said before."""
        now = time.monotonic()
        at, found = self.known.get(token, (0, None))
        if now - at > 0.1:
            _, found = ask(self.admin, "POST", "/admin/oauth2/introspect", urllib.parse.urlencode({"token": token}),
                           {"Content-Type": "application/x-www-form-urlencoded"})
            self.known[token] = (now, found)
        return found


def b64(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def ask(port, method, path, body=None, headers=None):
    """A request within; its status, and its JSON."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        given = headers or {"Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if isinstance(body, dict) else body, given)
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text) if text.startswith((b"{", b"[")) else text.decode()


class HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        if not isinstance(sys.exc_info()[1], OSError):  # whoever asked has gone
            super().handle_error(*_)


def serve(engine, handler):
    """A server on a free port, in a thread."""
    server = HttpServer(("127.0.0.1", 0), type(handler.__name__, (handler,), {"engine": engine}))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return server


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status, body, kind="text/html; charset=utf-8", **headers):
        body = json.dumps(body) if not isinstance(body, (str, bytes)) else body
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class Front(Handler):
    """Hydra's public side; what comes to the token endpoint is written down."""

    def forward(self):
        engine, body = self.engine, self.body()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", engine.public, timeout=60)) as connection:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            found = response.read()
        form = dict(urllib.parse.parse_qsl(body.decode())) if self.path == "/oauth2/token" else {}
        if form:
            self.note(form, response.status, found)
        if form.get("grant_type") == "refresh_token":
            time.sleep(engine.delay)
            if engine.lose > 0:
                engine.lose -= 1
                self.close_connection = True
                return
        self.send_response_only(response.status)
        for name, value in response.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(found)))
        self.end_headers()
        self.wfile.write(found)

    do_GET = do_POST = do_DELETE = forward

    def note(self, form, status, found):
        answer = json.loads(found) if found.startswith(b"{") else {}
        token = form.get("refresh_token", "")
        with self.engine.lock:
            self.engine.tokens[digest(token)] = token
            if "refresh_token" in answer:
                self.engine.last = digest(answer["refresh_token"])
                self.engine.tokens[self.engine.last] = answer["refresh_token"]
            self.engine.seen.append(Seen(form.get("grant_type"), digest(token), form.get("replica"), time.time(), status,
                                         answer.get("error"), answer.get("error_description")))


class Pages(Handler):
    """Who it is, and whether they consent, as Hydra has others ask; and an API that wants a token of Hydra's."""

    def do_GET(self):
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        if parts.path in ("/login", "/consent"):
            kind = parts.path.strip("/")
            challenge = query[f"{kind}_challenge"]
            fields = '<input name="login"><input name="password">' if kind == "login" else '<input name="said" value="yes">'
            self.answer(200, f'<form method="post" action="/{kind}"><input type="hidden" name="challenge" value="{challenge}">'
                             f'{fields}<button>Continue</button></form>')
        elif parts.path.startswith("/api/v2/"):
            self.api()
        else:
            self.answer(200, f"<p>{query.get('error')}: {query.get('error_description')}</p>")

    def do_POST(self):
        engine, form = self.engine, dict(urllib.parse.parse_qsl(self.body().decode()))
        kind, challenge = self.path.strip("/"), urllib.parse.quote(form["challenge"])
        path = f"/admin/oauth2/auth/requests/{kind}"
        verdict = "accept"
        if kind == "login":
            body = {"subject": form["login"]}
        elif form.get("said") == "yes":
            asked = ask(engine.admin, "GET", f"{path}?consent_challenge={challenge}")[1]
            body = {"grant_scope": asked["requested_scope"]}
        else:
            verdict, body = "reject", {"error": "access_denied", "error_description": "The resource owner denied the request"}
        status, found = ask(engine.admin, "PUT", f"{path}/{verdict}?{kind}_challenge={challenge}", body)
        if status != 200:
            self.answer(500, json.dumps(found))
            return
        self.answer(302, "", Location=found["redirect_to"])

    def api(self):
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        found = self.engine.introspect(token) if token else {}
        if found.get("active") and found.get("token_use") == "access_token":
            self.answer(200, {"account": found["sub"]}, "application/json")
        else:
            self.answer(401, {"request_id": "1", "code": "", "message": "authentication failed"}, "application/json")
