"""WebSockets through sidekey, and upgrades that are none."""

import contextlib
import json
import re
import secrets
import socket
import threading

from support import check, figure
from . import lab


def suite_websocket(directory, tools):
    """The websockets library on both sides; raw bytes; silence; upgrades to something else."""
    certificates = lab.Certificates(directory)
    words = [tools, "websocket_peers.py", certificates.cert, certificates.key, certificates.root]
    with lab.Peer(*words) as peers, lab.Origin(tools) as origin, Raw() as raw, Raw(ANYTHING) as rash:
        # Silence in a tunnel may be longer than both sides' limits for connections that idle.
        routes = {
            "clear": (peers.urls["clear"], 'idle_timeout = "1s"'),
            "tls": (peers.urls["tls"], 'idle_timeout = "1s"'),
            "origin": (origin.urls["1.1"], ""),
            "raw": (raw.url, 'idle_timeout = "1s"'),
            "rash": (rash.url, ""),
        }
        with lab.Front(directory, certificates, routes, 'idle_timeout = "1s"') as sidekey:
            addresses = {route: [sidekey.address(route), sidekey.address(route, True)] for route in ["clear", "tls"]}
            ended, said = peers.check_all({"addresses": addresses, "token": lab.TOKEN})
            check("the WebSocket peers run to their end", ended, said)
            untouched(sidekey.address("raw"))
            for upgrade in ["h2c", "foo", "websocket, foo"]:
                reaches_as_request(sidekey.address("origin"), upgrade)
            for name, extra in [("an upgrade to foo", "Upgrade: foo\r\nConnection: upgrade\r\n"),
                                ("no upgrade at all", "")]:
                head = ask(sidekey.address("rash"), extra)
                check(f"a 101 of an upstream to {name} is 502",
                      " 502 " in head and "sidekey-error: upstream_protocol" in head, head)
                figure(head.splitlines()[0])
            check("tunnels that are over leave no files open", lab.until(lambda: raw.open == 0), raw.open)


def ask(address, extra):
    """A GET with these lines in its header; the header of the answer, and its body."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 20) as stream:
        stream.sendall(f"GET /echo HTTP/1.1\r\nHost: {host}\r\n{extra}\r\n".encode())
        reader, said = stream.makefile("rb"), b""
        while (line := reader.readline()) not in (b"\r\n", b""):
            said += line
        length = re.search(rb"(?i)content-length: (\d+)", said)
        return (said + b"\r\n" + reader.read(int(length[1]) if length else 0)).decode()


def reaches_as_request(address, upgrade):
    settings = "HTTP2-Settings: AAMAAABkAAQAAP__\r\n" if upgrade == "h2c" else ""
    said = ask(address, f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n{settings}"
                        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n")
    body = re.search(r"\{.*\}", said)
    names = [name for name, _ in json.loads(body[0])["headers"]] if body else None
    check(f"Upgrade: {upgrade} opens no tunnel and reaches the upstream as an ordinary request",
          said.startswith("HTTP/1.1 200") and names and not {"upgrade", "connection", "http2-settings"} & set(names),
          said)


# Bytes that stay what they are.
AMOUNT = 100_000
HANDSHAKE = ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
ANSWER = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
          b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
ANYTHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"


class Raw:
    """An upstream that answers each request with this, then sends back every byte turned over, until it is told that
    no more come."""

    def __init__(self, answer=ANSWER):
        self.answer, self.open = answer, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                stream = self.listener.accept()[0]
                threading.Thread(target=self._serve, args=[stream], daemon=True).start()

    def _serve(self, stream):
        self.open += 1
        with contextlib.suppress(OSError), stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += stream.recv(4096)
            # What comes behind the answer in the same packet belongs to the tunnel.
            stream.sendall(self.answer + b"at once")
            while piece := stream.recv(65536):
                stream.sendall(bytes(byte ^ 0xFF for byte in piece))
        self.open -= 1


def untouched(address):
    host, port = address.split(":")
    sent = secrets.token_bytes(AMOUNT)
    with socket.create_connection((host, int(port)), 20) as stream:
        # And so do those that come right behind the request.
        stream.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\n{HANDSHAKE}\r\n".encode() + sent[:1000])
        writing = threading.Thread(target=lambda: (stream.sendall(sent[1000:]), stream.shutdown(socket.SHUT_WR)))
        writing.start()
        reader, got = stream.makefile("rb"), b""
        head = b""
        while (line := reader.readline()) not in (b"\r\n", b""):
            head += line
        got = reader.read()
        writing.join()
    figure(f"{head.splitlines()[0].decode()}; {len(sent)} bytes one way, {len(got)} the other, then both ends closed")
    check(f"{AMOUNT} random bytes go through a tunnel untouched, both ways, to its end",
          got == b"at once" + bytes(byte ^ 0xFF for byte in sent), f"{head} {len(got)}")


SUITES = {"websocket": suite_websocket}
