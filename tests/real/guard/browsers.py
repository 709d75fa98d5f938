"""Web pages in a real browser: what another site's page can reach through sidekey, and what a let-in one can."""

import base64
import contextlib
import hashlib
import http.server
import itertools
import json
import re
import socket
import socketserver
import subprocess
import threading
import urllib.parse

from support import ROOT, Sidekey, adopt, check, command, figure, free_port

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
WEBSOCKET = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

# How a page can make its browser send something; whether a page of another origin can read or see that it worked.
WAYS = [
    "fetch", "fetch no-cors", "fetch credentials", "fetch POST text", "fetch POST no-cors", "fetch POST JSON",
    "fetch PUT", "fetch DELETE", "fetch own header", "fetch Authorization", "XMLHttpRequest", "sendBeacon",
    "fetch keepalive", "form GET", "form POST", "form POST multipart", "form POST text/plain", "img", "img crossorigin", "video",
    "script", "script crossorigin", "module script", "dynamic import", "stylesheet", "font", "prefetch", "preload",
    "object", "embed", "iframe", "WebSocket", "EventSource", "Worker importScripts", "blob Worker importScripts", "location", "window.open", "link",
    "link noreferrer", "meta refresh", "redirect",
    "redirect of a let-in site", "img over a let-in site", "form over a let-in site", "sandboxed frame", "sandboxed frame, img",
]


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """HTTP on loopback that keeps what it was asked."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.seen, self.lock = [], threading.Lock()
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """A browser that closes a page lets go of what it asked for."""

    def __exit__(self, *cause):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, kind, body, status=200, **headers):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Upstream(Handler):
    """What is behind sidekey: it counts, and answers with what was asked for."""

    def answer(self):
        url = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(url.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding"):
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        with self.server.lock:
            self.server.seen.append({"method": self.command, "way": asked.get("way"), "page": asked.get("page"),
                                     "headers": dict(self.headers), "body": body.decode(errors="replace")})
        if (self.headers.get("Upgrade") or "").lower() == "websocket":
            key = base64.b64encode(hashlib.sha1(self.headers["Sec-WebSocket-Key"].encode() + WEBSOCKET).digest())
            self.send_response(101)
            for name, value in [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Accept", key.decode())]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"\x81\x02ok")
            self.close_connection = True
            return
        kind = url.path.rsplit(".", 1)[-1]
        answers = {
            "gif": ("image/gif", GIF), "js": ("text/javascript", b"globalThis.ran?.();"), "css": ("text/css", b"p { top: 1px }"),
            "html": ("text/html", b"<!doctype html><title>upstream</title>"), "sse": ("text/event-stream", b"data: ok\n\n"),
        }
        # It would let every page in: that is not for an upstream to say.
        self.say(*answers.get(kind, ("application/json", b'{"ok":true}')), Access_Control_Allow_Origin="*",
                 Access_Control_Allow_Headers="*", Access_Control_Allow_Methods="*")

    do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_HEAD = answer


class Page(Handler):
    """The pages that try."""

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/redirect":
            to = dict(urllib.parse.parse_qsl(url.query))["to"]
            return self.say("text/plain", b"", 307, Location=to, Access_Control_Allow_Origin="*", Connection="close")
        if url.query == "worker":
            text = b"onmessage = ({ data }) => { try { importScripts(data); postMessage('works'); } catch { postMessage('fails'); } };"
            return self.say("text/javascript", text, Connection="close")
        script = (ROOT / "tests" / "real" / "guard" / "page.js").read_bytes()
        page = b"<!doctype html><title>page</title><body><script>" + script + b"</script>"
        self.say("text/html; charset=utf-8", page, Connection="close")

    do_POST = do_GET


class Watch:
    """Stands before sidekey and sees what arrives there and how it is answered; all passes as it is. The name of the
    rebinding page means its own server until the page is there, and sidekey from then on."""

    def __init__(self, port, sidekey, rebinding):
        self.sidekey, self.rebinding, self.arrived, self.lock = sidekey, rebinding, [], threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", port), backlog=128)
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.join, args=(near,), daemon=True).start()

    def join(self, near):
        first = near.recv(65536)
        is_page = re.match(rb"(GET|POST) /(\?|redirect\?| )", first) and b"\r\nHost: rebind.test" in first
        exchange = {"asked": b"", "answered": b""}
        if first and not is_page:
            with self.lock:
                self.arrived.append(exchange)
        with contextlib.suppress(OSError), near, socket.create_connection(self.rebinding if is_page else self.sidekey) as far:
            far.sendall(first)
            exchange["asked"] += first
            onward = threading.Thread(target=self.copy, args=(near, far, exchange, "asked"), daemon=True)
            onward.start()
            if b"\r\nHost: rebind.test" in first:
                # So that what comes next is asked anew what its name means.
                near.sendall(self.one_answer(far, exchange))
                near.shutdown(socket.SHUT_RDWR)
            else:
                self.copy(far, near, exchange, "answered")
                onward.join()

    @staticmethod
    def one_answer(far, exchange):
        whole = b""
        while some := far.recv(65536):
            whole += some
            head, end, body = whole.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
            if end and len(body) >= int(length[1] if length else 0):
                break
        exchange["answered"] += whole
        return whole

    @staticmethod
    def copy(source, sink, exchange, what):
        with contextlib.suppress(OSError):
            while some := source.recv(65536):
                exchange[what] += some
                sink.sendall(some)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def requests(self):
        """Page, way, method and status of each request of a page that arrived."""
        found = []
        with self.lock:
            arrived = list(self.arrived)
        for exchange in arrived:
            # A body may stand right before the next one.
            heads = re.findall(rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS) (/\S*) HTTP/1\.1\r\n", exchange["asked"])
            statuses = re.findall(rb"(?m)HTTP/1\.1 (\d{3}) ", exchange["answered"])
            for (method, target), status in itertools.zip_longest(heads, statuses[:len(heads)], fillvalue=b"0"):
                query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(target.decode()).query))
                found.append((query.get("page"), query.get("way"), method.decode(), int(status)))
        return found


def suite_web_pages(directory, tools):
    """Headless Chromium: pages of other origins, and of a name that comes to mean 127.0.0.1, against those let in."""
    front = free_port()
    with Server(Upstream) as upstream, Server(Page) as pages:
        app, other = f"http://app.test:{pages.port}", f"http://127.0.0.1:{pages.port}"
        credential = 'credential = { type = "bearer", token = { value = "the-secret" } }'
        config = f"""
[server]
listen = "127.0.0.1:0"
[route.shut]
path = "/shut"
upstream = "http://127.0.0.1:{upstream.port}"
{credential}
[route.open]
path = "/open"
upstream = "http://127.0.0.1:{upstream.port}"
{credential}
cors = {{ origins = ["{app}", "{other}"], credentials = true }}
"""
        numeric = f"http://127.0.0.1:{front}"
        cases = [
            {"name": "other site", "page": f"http://evil.test:{pages.port}", "to": f"{numeric}/open", "open": False},
            {"name": "other port", "page": f"http://localhost:{pages.port}", "to": f"http://localhost:{front}/open",
             "open": False},
            {"name": "shut route", "page": app, "to": f"{numeric}/shut", "open": False},
            {"name": "rebinding", "page": f"http://rebind.test:{front}", "to": f"http://rebind.test:{front}/open",
             "open": False},
            {"name": "let in, other site", "page": app, "to": f"{numeric}/open", "open": True},
            {"name": "let in, other port", "page": other, "to": f"{numeric}/open", "open": True},
        ]
        told = {"chromium": tools.chromium, "ways": WAYS, "cases": cases, "redirector": f"{app}/redirect?to="}
        packages = tools.packages("guard", "package.json", "browsers.mjs")
        with Sidekey(directory, config) as sidekey:
            host, _, port = sidekey.addresses[0].rpartition(":")
            with Watch(front, (host, int(port)), ("127.0.0.1", pages.port)) as watch:
                ran = command("node", packages / "browsers.mjs", json.dumps(told), stdout=subprocess.PIPE, timeout=600)
                adopt(ran.stdout)
                check("web pages: the browser gets to the end", ran.returncode == 0, f"exit status {ran.returncode}")
                lines = [json.loads(line[8:]) for line in ran.stdout.splitlines() if line.startswith("outcome ")]
                seen = {(line["page"], line["way"]): line["outcome"] for line in lines}
                judge(cases, seen, watch.requests(), upstream.seen)


# What does not work from a page that is let in either: its browser tells no origin then, or null.
TELLS_NO_ORIGIN = {
    "link noreferrer": "the page asks for that",
    "blob Worker importScripts": "its script has no address",
    "sandboxed frame": "a sandboxed frame has an origin of its own, null",
    "sandboxed frame, img": "likewise",
    "form over a let-in site": "a form that is redirected to another origin has null",
}


def is_told(case, way):
    """Does a browser tell what page it is? A fetch that is redirected by another origin than its page's has null."""
    redirected_twice = way == "redirect of a let-in site" and case["name"] == "let in, other port"
    return way not in TELLS_NO_ORIGIN and not redirected_twice


def judge(cases, outcomes, arrived, reached):
    """Of others' pages, nothing reaches the upstream, though it left the browser; of pages let in, everything works."""
    table = {}
    for case in cases:
        name, is_open = case["name"], case["open"]
        for way in WAYS:
            came = [(method, status) for page, asked, method, status in arrived if (page, asked) == (name, way)]
            through = [request for request in reached if (request["page"], request["way"]) == (name, way)]
            worked = outcomes.get((name, way))
            table[way, name] = f"{'/'.join(str(status) for _, status in came) or '-'} {len(through)} {worked}"
            if is_open and is_told(case, way):
                check(f"web pages: {name}: {way} works", through and worked in ("works", "sent"), table[way, name])
            else:
                check(f"web pages: {name}: {way} does not reach the upstream", not through, through)
                check(f"web pages: {name}: {way} arrived at sidekey and was refused",
                      came and all(status == 403 for _, status in came), came or "it never arrived")
    for way, why in TELLS_NO_ORIGIN.items():
        figure(f"{way}: refused from every page, for {why}")
    wide = max(map(len, WAYS))
    figure("for each: the statuses that sidekey answered with, how many reached the upstream, and what the page saw")
    figure(" | ".join(["".ljust(wide), *(case["name"].ljust(20) for case in cases)]))
    for way in WAYS:
        figure(" | ".join([way.ljust(wide), *(table[way, case["name"]].ljust(20) for case in cases)]))
    names = [request for request in reached for name in request["headers"]
             if name.lower() in ("origin", "referer") or name.lower().startswith("sec-fetch-")]
    check("web pages: the upstream heard of no page", not names, names[:1])
    own = [request for request in reached if request["headers"].get("authorization", request["headers"].get("Authorization")) != "Bearer the-secret"]
    check("web pages: what reached it carries the route's credential", not own, own[:1])


SUITES = {"web-pages": suite_web_pages}
