"""TLS with a private CA, and HTTP/2, between sidekey and the server; HTTP/2 from callers."""

import contextlib
import os
import pathlib
import re
import subprocess

from support import Tools, check, command, figure
from .room import OLD, QUERY
from .server import Connection

QUERIES, AT_ONCE = 1000, 40


def connections(sidekey, port):
    """How many connections sidekey has to the server's port."""
    sockets = set()
    for file in pathlib.Path(f"/proc/{sidekey.child.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it may just have been closed
            sockets.add(os.readlink(file))
    found = 0
    for table in ["tcp", "tcp6"]:
        for line in pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, _, remote, state, *rest = line.split()
            # 01: established. The tenth column is the socket's inode.
            if state == "01" and int(remote.rpartition(":")[2], 16) == port and f"socket:[{rest[5]}]" in sockets:
                found += 1
    return found


def checks(server, front):
    for route in ["graph", "h2c", "tls", "tls-http1"]:
        answer = front.query(route, "RETURN 1")
        check(f"{route}: a query", answer.values == [[1]], answer)
        base = front.at(route)
        found = front.ask(route, "GET", "/").json
        check(f"{route}: discovery leads back through sidekey", found.get("query", "").startswith(f"{base}/db/"), found)
        begun = front.ask(route, "POST", OLD, {"statements": []})
        check(f"{route}: and so do the addresses of a transaction", begun.headers["Location"].startswith(base)
              and begun.json["commit"].startswith(base), begun)
        path = begun.headers["Location"].removeprefix(base)
        ended = Connection(base).ask("DELETE", path)
        check(f"{route}: which goes on", ended.status == 200, ended)
    answer = front.query("tls-stranger", "RETURN 1")
    check("TLS: without its CA, nothing is sent", (answer.status, answer.own) == (502, "upstream_unreachable")
          and answer.code, answer)
    rows = {"statement": "UNWIND range(1, 100000) AS n RETURN n"}
    answer = front.ask("tls", "POST", QUERY, rows)
    check("TLS and HTTP/2: 100000 rows", len(answer.values or []) == 100_000, str(answer)[:300])
    many(server, front)


def many(server, front):
    """Callers of HTTP/2, many requests at once on one connection; with HTTP/2 over TLS one connection carries them on, too."""
    program = Tools.program("h2load", "nghttp2-client")
    body = front.secrets / "query"
    body.write_text('{"statement":"RETURN 1"}')
    ways = [("graph", server.port, "HTTP/1.1"), ("h2c", server.port, "HTTP/2"), ("tls-http1", server.tls_port, "HTTP/1.1"),
            ("tls", server.tls_port, "HTTP/2")]
    for route, port, version in ways:
        before = connections(front, port)
        words = ["-n", QUERIES, "-c", "1", "-m", AT_ONCE, "-H", "content-type: application/json", "-d", body,
                 front.at(route) + QUERY]
        ran = command(program, *words, stdout=subprocess.PIPE)
        took = re.search(r"finished in ([\d.]+m?s)", ran.stdout)
        made = connections(front, port) - before
        figure(f"{route}: {QUERIES} queries, {AT_ONCE} at once, in {took and took[1]}; {made} new connections to the server")
        check(f"{route}: {QUERIES} queries of HTTP/2 at once are all answered", f"status codes: {QUERIES} 2xx" in ran.stdout,
              ran.stdout)
        # HTTP/2 takes the one that is there, or a new one; HTTP/1.1 one for each of those at once.
        check(f"{route}: by {version}", made <= 1 if version == "HTTP/2" else made >= AT_ONCE / 2, made)
