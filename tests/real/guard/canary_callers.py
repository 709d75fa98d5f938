"""What callers send to a proxy and to its admin listener, well and badly; all that comes back is kept."""

import base64
import contextlib
import http.client
import socket
import subprocess

from .canary_peers import ECHOES


class Ask:
    """What callers send and what comes back."""

    def __init__(self, hunt, address, tokens):
        self.hunt, (self.host, port) = hunt, address.rsplit(":", 1)
        self.port, self.turn = int(port), 0
        self.tokens = [value for place, value in tokens.items() if place.startswith("caller")]
        self.statuses, self.echoed, self.own, self.own_token = {}, b"", {}, None

    def headers(self):
        """A caller shows its token in each of the ways by turns, and has secrets of its own."""
        token = self.tokens[self.turn % len(self.tokens)]
        self.turn += 1
        match self.turn % 3:
            case 0:
                return {"Sidekey-Token": token, "Authorization": f"Bearer {self.own_token}"}
            case 1:
                return {"Authorization": f"Bearer {token}"}
            case _:
                return {"Authorization": "Basic " + base64.b64encode(f"me:{token}".encode()).decode()}

    def ask(self, route, word_, headers=None, own=True):
        if route not in self.own:
            kinds = ["query", "body", "cookie", "header"]
            made = [self.hunt.canaries.new(f"caller's {kind}", [("upstream", route)]).value for kind in kinds]
            self.own[route] = [*made, self.hunt.canaries.new("caller's own Authorization").value]
        query, text, cookie, field, self.own_token = self.own[route]
        headers = self.headers() if headers is None else headers
        target, body = f"/{route}/{word_}", None
        if own:
            target += "?key=" + query
            body = text
            headers["Cookie"] = "id=" + cookie
            headers["X-Api-Key"] = field
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        try:
            connection.request("POST" if own else "GET", target, body, headers)
            response = connection.getresponse()
            head = f"{response.status} {response.reason}\n{response.headers}"
            with contextlib.suppress(http.client.HTTPException):
                body = response.read()
            self.keep(word_, head.encode() + (body if isinstance(body, bytes) else b""))
            status = response.status
        except (OSError, http.client.HTTPException) as error:
            status = type(error).__name__
        finally:
            connection.close()
        self.statuses[status] = self.statuses.get(status, 0) + 1
        return status

    def keep(self, what, data):
        # What an upstream repeats on purpose is its own answer, and passes as it is.
        if what in ECHOES:
            self.echoed += data
        else:
            self.hunt.keep("answers to callers", data)

    def raw(self, data):
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 10) as stream:
            stream.settimeout(3)
            stream.sendall(data)
            stream.shutdown(socket.SHUT_WR)
            came = b""
            with contextlib.suppress(OSError):
                while more := stream.recv(65536):
                    came += more
            self.hunt.keep("answers to callers", came)

    def malformed(self):
        """Requests that are refused or cannot be read."""
        # Not in paths, which the log tells of refused requests by design.
        # Some of them pass: what they say in an unusual method, say, is for the upstream to judge.
        new = lambda: self.hunt.canaries.new("malformed request", [("upstream", "far")]).value
        token = self.tokens[0]
        end = f"Sidekey-Token: {token}\r\n\r\n"
        good = f"Host: localhost\r\n{end}"
        cases = [
            f"GET /x?{new()} HTTP/1.1\r\n{good}", f"GET /far/../x?{new()} HTTP/1.1\r\n{good}",
            f"GET /far/%2e%2e/x%2f?{new()} HTTP/1.1\r\n{good}", f"GET http://u:{new()}@h/ HTTP/1.1\r\n{good}",
            f"GET http://{new()}.example/ HTTP/1.1\r\n{good}", f"CONNECT {new()}:443 HTTP/1.1\r\n{good}",
            f"TRACE /far/x?{new()} HTTP/1.1\r\n{good}", f"BREW /far/x?{new()} HTTP/1.1\r\n{good}",
            f"GET /far/x HTTP/1.1\r\nHost: {new()}.example\r\n{end}",
            f"GET /far/x HTTP/1.1\r\nOrigin: https://{new()}.example\r\n{good}",
            f"GET /far/x HTTP/1.1\r\nSec-Fetch-Site: {new()}\r\n{good}",
            f"GET /far/x HTTP/1.1\r\nX-Key: {new()}\0\r\n{good}", f"GET /far/x HTTP/1.1\r\n{new()} : x\r\n{good}",
            f"GET /far/x HTTP/1.1\r\nContent-Length: {new()}\r\n{good}",
            f"GET /far/x HTTP/1.1\r\nTransfer-Encoding: {new()}\r\n{good}",
            f"GET /far/x HTTP/1.1\r\nUpgrade: {new()}\r\nConnection: upgrade\r\n{good}",
            f"GET /far/x HTTP/1.1\r\nExpect: {new()}\r\n{good}", f"GET /far/x HTTP/9.{new()}\r\n{good}",
            f"GET /far/x HTTP/1.1\r\nConnection: {new()}, close\r\n{good}",
            f"POST /far/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{good}{new()}\r\n",
            f"POST /far/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{good}5\r\n{new()}\r\n0\r\n\r\n",
            f"GET /far/x HTTP/1.1\r\nX-Long: {new() * 4000}\r\n{good}", f"GET /far/x?{new() * 1000} HTTP/1.1\r\n{good}",
            f"GET /far/x HTTP/1.1\r\n{f'X-Key: {new()}' + chr(13) + chr(10)}" + "A: b\r\n" * 200 + good,
            f"{new()}\r\n\r\n", f"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{new()}",
            f"GET /far/x HTTP/1.1\r\nHost: localhost\r\nSidekey-Token: {token}\r\nSidekey-Token: {new()}\r\n\r\n",
        ]
        for case in cases:
            self.raw(case.encode("latin-1"))
        for unknown in [lambda: {"Sidekey-Token": new()}, lambda: {"Authorization": f"Bearer {new()}"}, dict,
                        lambda: {"Authorization": f"Basic {new()}"}, lambda: {"Authorization": f"{new()} x"},
                        lambda: {"Sidekey-Token": new() * 100}, lambda: {"Sidekey-Token": f"{new()} {new()}"}]:
            status = self.ask("far", "unknown", unknown())
            if status not in (400, 401):
                check("canaries: a caller that nobody knows is refused", False, status)
        return len(cases)


def over_h2(hunt, ask, document):
    """The same by HTTP/2, from a caller that speaks it at once."""
    for route in [name for name in document.routes if "-ok-" in name][:12]:
        own = hunt.canaries.new("caller's query", [("upstream", route)]).value
        for path in ["ok", "reset", "garbage"]:
            ran = subprocess.run(["curl", "-sSi", "--http2-prior-knowledge", "--max-time", "20", "-H",
                                  f"Sidekey-Token: {ask.tokens[0]}",
                                  f"http://{ask.host}:{ask.port}/{route}/{path}?{own}"],
                                 capture_output=True, check=False)
            hunt.keep("answers to callers", ran.stdout)
    for header in ["Sidekey-Token: ", "Authorization: Bearer ", "Origin: ", "Cookie: "]:
        own = hunt.canaries.new("malformed request").value
        ran = subprocess.run(["curl", "-sSi", "--http2-prior-knowledge", "--max-time", "20", "-H", header + own,
                              f"http://{ask.host}:{ask.port}/far/%2e%2e?{own}"], capture_output=True, check=False)
        hunt.keep("answers to callers", ran.stdout)


def ask_admin(hunt, port, admin_token):
    new = lambda: hunt.canaries.new("wrong admin token").value
    for method, path, headers in [
        ("GET", "/status", {}), ("GET", "/metrics", {}), ("GET", "/livez", {}), ("GET", "/readyz", {}),
        ("GET", "/", {}),
        ("GET", "/connect/none", {}), ("GET", "/callback", {}), ("GET", f"/callback?code={new()}&state={new()}", {}),
        ("GET", f"/callback?error={new()}&state={new()}", {}), ("POST", "/quitquitquit", {"Sidekey-Token": new()}),
        ("POST", "/reload", {"Sidekey-Token": new()}), ("POST", "/reload", {"Sidekey-Token": admin_token}),
        ("GET", "/status", {"Sidekey-Token": admin_token, "Cookie": f"sidekey={new()}"}),
        ("GET", "/status", {"Host": f"{new()}.example"}), ("GET", f"/{new()}", {"Authorization": f"Bearer {new()}"}),
        ("POST", f"/connect/x?ticket={new()}", {"Origin": "null"}), ("GET", f"/connect/x?ticket={new()}", {}),
    ]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            told = f"{response.status}\n{response.headers}".encode() + response.read()
        its_own = path in ("/status", "/metrics", "/livez", "/readyz")
        hunt.keep(path if its_own else "answers of the admin listener", told)
