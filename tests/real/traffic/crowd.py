"""Many callers at once, most of them no good."""

import contextlib
import itertools
import json
import resource
import socket
import threading
import time

from support import Sidekey, Standins, all_well, check, figure, load, number
from . import lab

IDLE = number("CROWD", 10_000)
SECONDS = number("CROWD_SECONDS", 10)
# The load, the flood, and what there is besides.
SPARE = 600
# The most that is kept, in bytes, of a connection on which nothing came: a task with its future, a stream registered
# with the event queue, an exchange and its alarm. Of one that had a request: hyper's connection besides, with a read
# buffer of 8 KiB and one for the answer's header.
OF_SILENT, OF_USED = 8 << 10, 24 << 10
# What the allocator is given back it keeps for those who come next. So after a few crowds, one more of the same size
# must not take anything new; bytes a connection that count as nothing.
NOTHING = 512
CROWDS = 12


def suite_crowd(directory, _):
    """Thousands of callers that idle, thousands that crawl, a flood of new ones; and others who want to work."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    hard = IDLE * 10 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    # A tenth as many are slow, and half of those have a connection upstream as well.
    idle = min(IDLE, (hard - SPARE) * 10 // 12)
    if idle < IDLE:
        figure(f"{hard} files may be open, so {idle} connections idle instead of {IDLE}")
    with Standins() as standins:
        crowd(directory, standins, idle)
        few(lab.below(directory, "few"), standins)
        unsaid(lab.below(directory, "unsaid"), standins)


def configuration(standins, server):
    return f"""
[server]
listen = "127.0.0.1:0"
header_timeout = "10m"
{server}
[route.neon]
provider = "neon"
path = "/neon"
upstream = "{standins.urls['neon']}"
credential = {{ type = "bearer", token = {{ value = "{lab.TOKEN}" }} }}
idle_timeout = "2s"
"""


def crowd(directory, standins, idle):
    crawling = idle // 10
    with Sidekey(directory, configuration(standins, f"max_connections = {idle + crawling + SPARE}")) as sidekey:
        url = f"{sidekey.url}/neon/small"
        # Warm, so that what follows is the connections' own.
        load("--connections", 16, "--requests", 2000, url)
        files, (before, _) = sidekey.files(), sidekey.memory()
        with contextlib.ExitStack() as stack:
            silent = Crowd(sidekey, idle // 2, stack)
            lab.until(lambda: sidekey.files() >= files + idle // 2 - 16)
            with_silent = sidekey.memory()[0]
            used = Crowd(sidekey, idle - idle // 2, stack)
            used.ask(REQUEST)
            with_used = sidekey.memory()[0]
            each = (with_silent - before) * 1024 / len(silent), (with_used - with_silent) * 1024 / len(used)
            figure(f"VmRSS {before} kB; {with_silent} kB with {len(silent)} silent connections, {each[0]:.0f} bytes "
                   f"each; {with_used} kB with {len(used)} more that had a request, {each[1]:.0f} bytes each; "
                   f"{sidekey.files()} files")
            check(f"a silent connection costs less than {OF_SILENT >> 10} KiB", each[0] < OF_SILENT, each[0])
            check(f"an idle one that had a request costs less than {OF_USED >> 10} KiB", each[1] < OF_USED, each[1])
            slow = Slow(sidekey, crawling, stack)
            flood = Flood(sidekey)
            found = load("--connections", 16, "--seconds", SECONDS, url)
            flood.stop()
            slow.stop()
            figure(f"meanwhile {flood.count} new connections, {slow.sent} bytes from {crawling} slow callers; "
                   f"VmRSS, VmHWM {sidekey.memory()} kB; {sidekey.files()} files")
            check("every request of those who work succeeds", all_well(found), found)
            check("the flood was one", flood.count > 200 * SECONDS, flood.count)
            check("the slow ones are still there", slow.open() == crawling, f"{crawling - slow.open()} were closed")
            used.ask(REQUEST)
            check("the idle ones can still be used", used.answered == len(used), f"{used.answered} of {len(used)}")
            silent.ask(REQUEST)
            check("so can those that had been silent", silent.answered == len(silent), silent.answered)
        # Upstream connections that the slow bodies had may stay for their time.
        gone = lab.until(lambda: sidekey.files() <= files, 60, 0.1)
        check("when all have gone, their files are closed", gone, f"{sidekey.files()} instead of {files}")
        after = [sidekey.memory()[0]]
        while len(after) < CROWDS and (len(after) < 2 or after[-1] - after[-2] >= NOTHING * idle >> 10):
            with contextlib.ExitStack() as stack:
                Crowd(sidekey, idle, stack).ask(REQUEST)
            lab.until(lambda: sidekey.files() <= files, 60, 0.1)
            after.append(sidekey.memory()[0])
        figure(f"VmRSS {before} kB before anybody came; after each of {len(after)} crowds had gone: {after} kB")
        check("their memory is used for the next crowd", after[-1] - after[-2] < NOTHING * idle >> 10, after)
        check("requests go on", all_well(load("--connections", 16, "--requests", 2000, url)))


REQUEST = b"GET /neon/small HTTP/1.1\r\nHost: localhost\r\n\r\n"
# One address of the loopback network has ports for so many connections that linger after their end.
SOURCES = itertools.cycle(f"127.0.{high}.{low}" for high in range(1, 5) for low in range(1, 250))


def connect(address, source=None):
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), 30, source_address=source and (source, 0))


class Crowd:
    """Connections on which nothing happens unless it is asked for."""

    def __init__(self, sidekey, count, stack):
        self.streams = [stack.enter_context(connect(sidekey.addresses[0])) for _ in range(count)]
        self.answered = 0

    def __len__(self):
        return len(self.streams)

    def ask(self, request, at_once=64):
        """A request on each, so many at once."""
        self.answered = 0
        for first in range(0, len(self.streams), at_once):
            some = self.streams[first:first + at_once]
            for stream in some:
                stream.sendall(request)
            self.answered += sum(read_answer(stream).startswith(b"HTTP/1.1 200") for stream in some)


def read_answer(stream):
    """A whole answer, whose length is told."""
    said = b""
    while b"\r\n\r\n" not in said:
        piece = stream.recv(65536)
        if not piece:
            return said
        said += piece
    head, _, body = said.partition(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n")
                   if line.startswith(b"content-length:")), 0)
    while len(body) < length:
        body += stream.recv(65536)
    return head + b"\r\n\r\n" + body


class Slow:
    """Callers that send a byte a second, of a header or of a body."""

    def __init__(self, sidekey, count, stack):
        self.streams = [stack.enter_context(connect(sidekey.addresses[0])) for _ in range(count)]
        self.sent, self.over = 0, threading.Event()
        header = b"GET /neon/small HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"x" * 4000
        half = count // 2
        for stream in self.streams[half:]:
            stream.sendall(b"POST /neon/sink HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        self.texts = [header] * half + [b"y" * 100_000] * (count - half)
        self.thread = threading.Thread(target=self._crawl)
        self.thread.start()

    def _crawl(self):
        for second in itertools.count():
            for stream, text in zip(self.streams, self.texts):
                with contextlib.suppress(OSError):
                    self.sent += stream.send(text[second:second + 1])
            if self.over.wait(1):
                return

    def open(self):
        """How many of them have not been closed."""
        count = 0
        for stream in self.streams:
            stream.setblocking(False)
            try:
                count += bool(stream.recv(1, socket.MSG_PEEK))
            except BlockingIOError:
                count += 1
            except OSError:
                pass
        return count

    def stop(self):
        self.over.set()
        self.thread.join()


class Flood:
    """New connections, as many as can be: without a byte, with half a request, or closed before it is answered."""

    def __init__(self, sidekey):
        self.address, self.count, self.over = sidekey.addresses[0], 0, threading.Event()
        self.thread = threading.Thread(target=self._pour)
        self.thread.start()

    def _pour(self):
        pieces = itertools.cycle([b"", REQUEST[:20], REQUEST, b"\x16\x03\x01", b"PRI * HTTP/2.0\r\n"])
        while not self.over.is_set():
            with connect(self.address, next(SOURCES)) as stream:
                stream.sendall(next(pieces))
            self.count += 1

    def stop(self):
        self.over.set()
        self.thread.join()


def few(directory, standins):
    """Bounds that are reached."""
    config = configuration(standins, "max_connections = 100\nmax_requests = 20")
    with Sidekey(directory, config) as sidekey, contextlib.ExitStack() as stack:
        hundred = Crowd(sidekey, 100, stack)
        hundred.ask(REQUEST, at_once=10)
        check("max_connections = 100: a hundred are served", hundred.answered == 100, hundred.answered)
        turned_away("the 101st", sidekey)
        hundred.ask(REQUEST, at_once=10)
        check("the hundred go on", hundred.answered == 100, hundred.answered)
        hundred.streams.pop().close()
        # The place is free as soon as the worker has noticed.
        check("when one has gone, another one may come", lab.until(lambda: is_served(sidekey)))
        body = b"POST /neon/sink HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n"
        for stream in hundred.streams[:20]:
            stream.sendall(body)

        def overloaded():
            hundred.streams[30].sendall(REQUEST)
            return b"sidekey-error: overloaded" in read_answer(hundred.streams[30])
        check("max_requests = 20: the 21st gets 503 overloaded", lab.until(overloaded))
        for stream in hundred.streams[:20]:
            stream.sendall(b"hello")
        answers = [read_answer(stream) for stream in hundred.streams[:20]]
        check("the twenty are answered", all(b'{"bytes":5}' in answer for answer in answers), answers[:1])
        hundred.ask(REQUEST, at_once=10)
        check("and all are served again", hundred.answered == 99, hundred.answered)


def unsaid(directory, standins):
    """Unless told how many, callers get half of the files that the process may open, but for 64 that are no connections."""
    limit = ["sh", "-c", 'ulimit -n 264 && exec "$@"', "sh"]
    with Sidekey(directory, configuration(standins, ""), wrapper=limit) as sidekey, contextlib.ExitStack() as stack:
        hundred = Crowd(sidekey, 100, stack)
        hundred.ask(REQUEST, at_once=50)
        check("with 264 files, a hundred connections are served", hundred.answered == 100, hundred.answered)
        turned_away("with 264 files, the 101st", sidekey)


def turned_away(name, sidekey):
    with connect(sidekey.addresses[0]) as stream:
        stream.sendall(REQUEST)
        said = read_answer(stream)
        right = said.startswith(b"HTTP/1.1 503") and b"sidekey-error: overloaded" in said
        check(f"{name} gets 503 overloaded", right and json.loads(said.partition(b"\r\n\r\n")[2]), said)
        check(f"{name} is closed", right and stream.recv(1) == b"", "it is open")


def is_served(sidekey):
    with connect(sidekey.addresses[0]) as stream:
        stream.sendall(REQUEST)
        with contextlib.suppress(OSError):
            return read_answer(stream).startswith(b"HTTP/1.1 200")


SUITES = {"crowd": suite_crowd}
