"""A server and a client of the websockets library, with sidekey between them.

    websocket_peers.py CERT KEY ROOT

It prints its URLs, reads one line of JSON with sidekey's addresses in front of each, makes its checks, and ends.
"""

import json
import os
import ssl
import sys
import threading
import time

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import serve

MIB = 1 << 20


def check(name, condition, found=""):
    print(f"ok      {name}" if condition else f"FAILED  {name}: {found!r}", flush=True)


def messages(connection):
    """All that come, however it ends."""
    try:
        yield from connection
    except ConnectionClosed:
        pass


def handle(connection):
    """Does what the first message says, and sends back all others as they came."""
    headers = connection.request.headers
    for message in messages(connection):
        if message == "handshake":
            connection.send(json.dumps([[name.lower(), value] for name, value in headers.raw_items()]))
        elif message == "ping me":
            began = time.monotonic()
            connection.ping(b"from the server").wait(10)
            connection.send(f"pong after {time.monotonic() - began:.3f} s")
        elif message == "in pieces":
            connection.send(iter(["one ", "two ", "three"]))
        elif isinstance(message, str) and message.startswith("close "):
            connection.close(int(message.split()[1]), "as told")
        elif message == "vanish":
            connection.socket.shutdown(2)
        else:
            connection.send(message)


def try_all(label, uri, context, token):
    for compression in [None, "deflate"]:
        with connect(uri, ssl=context, compression=compression, max_size=None,
                     additional_headers={"Authorization": "Bearer mine"}) as socket:
            kind = f"{label}, {'with' if compression else 'without'} compression"
            check(f"{kind}: the extension is agreed on end to end",
                  bool(socket.response.headers.get("Sec-WebSocket-Extensions")) == bool(compression))
            socket.send("handshake")
            seen = json.loads(socket.recv())
            check(f"{kind}: the handshake carries the credential, and none but it",
                  [value for name, value in seen if name == "authorization"] == [f"Bearer {token}"], seen)
            for name, message in [("text", "grüß dich ☃"), ("empty text", ""), ("binary", os.urandom(1000)),
                                  ("a text of 1 MiB", "x" * MIB), ("1 MiB of binary", os.urandom(MIB))]:
                socket.send(message)
                got = socket.recv()
                check(f"{kind}: {name}", got == message, len(got))
            for _ in range(8):
                socket.send(b"x" * MIB)
            check(f"{kind}: eight frames of 1 MiB on their way at once",
                  all(socket.recv() == b"x" * MIB for _ in range(8)))
            socket.send("in pieces")
            pieces = list(socket.recv_streaming())
            check(f"{kind}: fragments stay fragments",
                  [piece for piece in pieces if piece] == ["one ", "two ", "three"], pieces)
            socket.send(iter([b"a" * 70_000, b"b", b"c" * 10]))
            got = socket.recv()
            check(f"{kind}: a message in fragments", got == b"a" * 70_000 + b"b" + b"c" * 10, len(got))
            began = time.monotonic()
            check(f"{kind}: a ping is answered by the server", socket.ping(b"from the client").wait(10))
            print(f"pong after {time.monotonic() - began:.3f} s", flush=True)
            socket.send("ping me")
            said = socket.recv()
            check(f"{kind}: a ping is answered by the client", said.startswith("pong"), said)
    for code in [1000, 1001, 1011, 4000, 4999]:
        with connect(uri, ssl=context) as socket:
            socket.send(f"close {code}")
            try:
                socket.recv(10)
                check(f"{label}: the server closes with {code}", False)
            except ConnectionClosed as closed:
                got = (closed.rcvd.code, closed.rcvd.reason)
                check(f"{label}: the server closes with {code}", got == (code, "as told"), got)
    closed_with = []

    def closing(connection):
        try:
            connection.recv(10)
        except ConnectionClosed as closed:
            closed_with.append(closed.rcvd and closed.rcvd.code)

    handlers.append(closing)
    with connect(uri, ssl=context) as socket:
        socket.close(4321, "bye")
    done.wait(10)
    done.clear()
    check(f"{label}: the client closes with 4321", closed_with == [4321], closed_with)
    with connect(uri, ssl=context) as socket:
        socket.send("vanish")
        try:
            socket.recv(10)
            check(f"{label}: a server that vanishes is noticed at once", False)
        except ConnectionClosed as closed:
            check(f"{label}: a server that vanishes is noticed at once", closed.rcvd is None, closed.rcvd)


def silent(label, uri, context, seconds=4):
    with connect(uri, ssl=context, ping_interval=None) as socket:
        socket.send("before")
        first = socket.recv()
        # What is tried is that nothing happens.
        time.sleep(seconds)
        socket.send("after")
        got = socket.recv(10)
        check(f"{label}: {seconds} s of silence, idle_timeout being 1 s, cut nothing",
              [first, got] == ["before", "after"], got)


# Handlers for the next connections, in place of the usual one.
handlers, done = [], threading.Event()


def dispatch(connection):
    if handlers:
        handlers.pop(0)(connection)
        done.set()
    else:
        handle(connection)


def main():
    cert, key, root = sys.argv[1:]
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=root)
    ours.load_cert_chain(cert, key)
    options = {"max_size": None, "ping_interval": None}
    servers = {"clear": serve(dispatch, "127.0.0.1", 0, **options),
               "tls": serve(dispatch, "127.0.0.1", 0, ssl=ours, **options)}
    urls = {}
    for name, server in servers.items():
        threading.Thread(target=server.serve_forever, daemon=True).start()
        urls[name] = f"{'https' if name == 'tls' else 'http'}://127.0.0.1:{server.socket.getsockname()[1]}"
    print(json.dumps(urls), flush=True)
    told = json.loads(sys.stdin.readline())
    ways = []
    for upstream, (clear, tls) in told["addresses"].items():
        ways.append((f"ws to {upstream} upstream", f"ws://{clear}/", None))
        ways.append((f"wss to {upstream} upstream", f"wss://{tls}/", theirs))
    for label, uri, context in ways:
        try_all(label, uri, context, told["token"])
    threads = [threading.Thread(target=silent, args=way) for way in ways]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for server in servers.values():
        server.shutdown()


if __name__ == "__main__":
    main()
