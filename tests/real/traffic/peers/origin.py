"""An upstream of HTTP/1.1 and HTTP/2 that keeps account of what reaches it.

    origin.py NAME [--host HOST] [--port PORT] [--only VERSION] [--tls CERT KEY]

The ports are the system's choice, unless one is given; then it should listen for one version only. It prints its URLs
as a line of JSON: `1.1`, `2` and, with `--tls`, `tls` (what ALPN agrees on). Then it answers each line of JSON on stdin
with one on stdout, and ends with stdin.

| line | what happens |
|---|---|
| {"event": TEXT} | every open /events gets it; the answer is how many there are |
| {"refused": MARK} | waits until the exchange is over that asked /refuse/…?MARK; what came of its body |

| request | answer |
|---|---|
| /echo | what was received, as JSON |
| /bytes/N | N bytes, the same at every time |
| /refuse/STATUS | that, before any of the body is read |
| /events | an SSE stream |
| /silent/SECONDS | as /echo, after so long a silence |
| anything else | its name |
"""

import asyncio
import contextlib
import hashlib
import json
import random
import ssl
import sys

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

PIECE = 64 << 10
# A body of a refused request that is still to come would have come by then.
GRACE = 5


class Gone(Exception):
    """The other side went away."""


class Http1:
    """A connection of HTTP/1.1, and the exchange that is on it."""

    version = "1.1"

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def next(self):
        """The header of the next request; is there one?"""
        head = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")[:-2]
        self.method, self.path, _ = first.split(" ")
        self.headers = [[name.lower(), value.strip()] for name, _, value in (line.partition(":") for line in lines)]
        told = dict(self.headers)
        self.asked = told.get("expect", "").lower() == "100-continue"
        self.chunked = "chunked" in told.get("transfer-encoding", "")
        self.left = int(told.get("content-length", 0))
        self.trailers, self.begun, self.whole = [], False, not (self.chunked or self.left)

    async def read(self):
        """A piece of the body; empty at its end."""
        if self.whole:
            return b""
        if self.asked:
            self.asked = False
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self.chunked and not self.left:
            self.left = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
            if not self.left:
                while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
                    name, _, value = line.decode("latin-1").partition(":")
                    self.trailers.append([name.lower(), value.strip()])
                self.whole = True
                return b""
        piece = await self.reader.read(min(PIECE, self.left))
        if not piece:
            raise Gone
        self.left -= len(piece)
        if self.chunked and not self.left:
            await self.reader.readexactly(2)
        self.whole = not (self.chunked or self.left)
        return piece

    def _head(self, status, fields):
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
        return f"HTTP/1.1 {status} .\r\n{lines}\r\n".encode()

    async def answer(self, status, kind, body):
        """A whole answer, in one write."""
        head = self._head(status, [["content-type", kind], ["content-length", len(body)]])
        self.writer.write(head + (b"" if self.method == "HEAD" else body))
        await self.writer.drain()

    async def begin(self, status, kind):
        self.writer.write(self._head(status, [["content-type", kind], ["transfer-encoding", "chunked"]]))
        await self.writer.drain()

    async def write(self, piece):
        self.writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await self.writer.drain()

    async def end(self):
        self.writer.write(b"0\r\n\r\n")

    def stop(self):
        """Wants no more of a body that nobody asked about: only HTTP/2 can say so."""

    async def stray(self):
        """Bytes that still come once the request is refused."""
        count = 0
        with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
            async with asyncio.timeout(GRACE):
                while piece := await self.reader.read(PIECE):
                    count += len(piece)
        return count


class Http2:
    """A stream of HTTP/2."""

    version = "2"

    def __init__(self, connection, number, headers):
        self.connection, self.number = connection, number
        told = dict(headers)
        self.method, self.path = told[":method"], told[":path"]
        self.headers = [[name, value] for name, value in headers]
        self.asked = told.get("expect", "").lower() == "100-continue"
        self.pieces, self.trailers, self.open, self.came = asyncio.Queue(), [], asyncio.Event(), 0
        self.over = asyncio.Event()

    async def read(self):
        if self.asked:
            self.asked = False
            self.connection.h2.send_headers(self.number, [(":status", "100")])
            self.connection.flush()
        piece, cost = await self.pieces.get()
        if piece is None:
            raise Gone
        if cost:
            self.connection.acknowledge(cost, self.number)
        return piece

    async def answer(self, status, kind, body):
        await self.begin(status, kind, length=len(body), end=self.method == "HEAD" or not body)
        if body and self.method != "HEAD":
            await self.write(body, end=True)

    async def begin(self, status, kind, length=None, end=False):
        fields = [(":status", str(status)), ("content-type", kind)]
        fields += [] if length is None else [("content-length", str(length))]
        self.connection.h2.send_headers(self.number, fields, end_stream=end)
        if end:
            self.connection.flush()

    async def write(self, body, end=False):
        view = memoryview(body)
        while len(view):
            room = self.connection.h2.local_flow_control_window(self.number)
            if not room:
                self.open.clear()
                self.connection.flush()
                await self.open.wait()
                if self.over.is_set():
                    raise Gone
                continue
            piece, view = view[:min(room, 16384)], view[min(room, 16384):]
            self.connection.h2.send_data(self.number, piece.tobytes(), end_stream=end and not len(view))
            if len(view) % (1 << 20) < 16384:
                await self.connection.drain()
        await self.connection.drain()

    async def end(self):
        self.connection.h2.end_stream(self.number)
        self.connection.flush()

    def stop(self):
        # As servers do (RFC 9113 §8.1). One that was asked about must not come anyway, and is waited for.
        if not self.asked:
            self.connection.h2.reset_stream(self.number)
            self.connection.flush()
            self.over.set()

    async def stray(self):
        with contextlib.suppress(asyncio.TimeoutError):
            async with asyncio.timeout(GRACE):
                await self.over.wait()
        return self.came


class Http2Connection:
    """A connection of HTTP/2."""

    def __init__(self, reader, writer, serve):
        self.reader, self.writer, self.serve = reader, writer, serve
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self.streams, self.tasks = {}, set()

    def flush(self):
        self.writer.write(self.h2.data_to_send())

    async def drain(self):
        self.flush()
        await self.writer.drain()

    def acknowledge(self, size, number):
        # The stream may be over by now.
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self.h2.acknowledge_received_data(size, number)
        self.flush()

    async def run(self):
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
        self.h2.increment_flow_control_window(1 << 24)
        self.flush()
        try:
            while data := await self.reader.read(1 << 18):
                for event in self.h2.receive_data(data):
                    self.take(event)
                await self.drain()
        finally:
            for stream in self.streams.values():
                self.finish(stream)

    def take(self, event):
        if isinstance(event, h2.events.WindowUpdated | h2.events.RemoteSettingsChanged):
            for stream in self.streams.values():
                stream.open.set()
            return
        if isinstance(event, h2.events.RequestReceived):
            stream = self.streams[event.stream_id] = Http2(self, event.stream_id, event.headers)
            task = asyncio.create_task(self.served(stream))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)
            return
        stream = self.streams.get(getattr(event, "stream_id", None))
        if stream is None:
            return
        if isinstance(event, h2.events.DataReceived):
            stream.came += len(event.data)
            if event.data:
                stream.pieces.put_nowait((event.data, event.flow_controlled_length))
            else:
                self.acknowledge(event.flow_controlled_length, stream.number)
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = [[name, value] for name, value in event.headers]
        elif isinstance(event, h2.events.StreamEnded):
            stream.pieces.put_nowait((b"", 0))
        elif isinstance(event, h2.events.StreamReset):
            self.finish(stream)

    async def served(self, stream):
        with contextlib.suppress(Gone, ConnectionError, h2.exceptions.ProtocolError):
            await self.serve(stream)
        self.streams.pop(stream.number, None)

    def finish(self, stream):
        stream.over.set()
        stream.open.set()
        stream.pieces.put_nowait((None, 0))


class Origin:
    """What it answers."""

    def __init__(self, name):
        self.name, self.listeners, self.refused = name, [], {}

    async def serve(self, exchange):
        path, _, query = exchange.path.partition("?")
        first, _, rest = path.lstrip("/").partition("/")
        if first == "refuse":
            await exchange.answer(int(rest), "text/plain", b"refused\n")
            exchange.stop()
            self.waited(query).set_result(await exchange.stray())
            raise Gone
        if first == "events":
            events = asyncio.Queue()
            self.listeners.append(events)
            await exchange.begin(200, "text/event-stream")
            await exchange.write(b": hello\n\n")
            while (text := await events.get()) is not None:
                await exchange.write(f"data: {text}\n\n".encode())
            return await exchange.end()
        digest, count = hashlib.sha256(), 0
        while piece := await exchange.read():
            digest.update(piece)
            count += len(piece)
        if first == "bytes":
            return await exchange.answer(200, "application/octet-stream", random.Random(rest).randbytes(int(rest)))
        if first == "silent":
            await asyncio.sleep(float(rest.split("/")[0]))
        if first in ("echo", "silent"):
            seen = {"name": self.name, "version": exchange.version, "method": exchange.method, "path": exchange.path,
                    "headers": exchange.headers, "bytes": count, "sha256": digest.hexdigest(),
                    "trailers": exchange.trailers}
            return await exchange.answer(200, "application/json", json.dumps(seen).encode())
        await exchange.answer(200, "text/plain", f"{self.name}\n".encode())

    def waited(self, mark):
        return self.refused.setdefault(mark, asyncio.get_running_loop().create_future())

    async def http1(self, reader, writer):
        with contextlib.suppress(Gone, ConnectionError, asyncio.IncompleteReadError):
            exchange = Http1(reader, writer)
            while True:
                await exchange.next()
                await self.serve(exchange)
        writer.close()

    async def http2(self, reader, writer):
        with contextlib.suppress(ConnectionError, h2.exceptions.ProtocolError):
            await Http2Connection(reader, writer, self.serve).run()
        writer.close()

    async def tls(self, reader, writer):
        agreed = writer.get_extra_info("ssl_object").selected_alpn_protocol()
        await (self.http2 if agreed == "h2" else self.http1)(reader, writer)

    async def obey(self, line):
        if "event" in line:
            listeners, text = list(self.listeners), line["event"]
            if text is None:
                self.listeners.clear()
            for listener in listeners:
                listener.put_nowait(text)
            return len(listeners)
        with contextlib.suppress(asyncio.TimeoutError):
            return await asyncio.wait_for(self.waited(line["refused"]), GRACE + 10)


async def main():
    name, *rest = sys.argv[1:]
    told = dict(zip(rest, rest[1:]))
    host, port, only = told.get("--host", "127.0.0.1"), int(told.get("--port", 0)), told.get("--only")
    origin = Origin(name)
    listening = {kind: await asyncio.start_server(serve, host, port, backlog=1024)
                 for kind, serve in {"1.1": origin.http1, "2": origin.http2}.items() if only in (None, kind)}
    if "--tls" in rest:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*rest[rest.index("--tls") + 1:][:2])
        context.set_alpn_protocols(["h2", "http/1.1"])
        listening["tls"] = await asyncio.start_server(origin.tls, host, 0, ssl=context)
    urls = {kind: f"{'https' if kind == 'tls' else 'http'}://{host}:{one.sockets[0].getsockname()[1]}"
            for kind, one in listening.items()}
    print(json.dumps(urls), flush=True)
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await reader.readline():
        print(json.dumps(await origin.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
