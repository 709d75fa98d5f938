"""The server goes away in the middle, by a signal or by the axe, and comes back; sidekey stays."""

import contextlib
import http.client
import time

from support import check, figure
from traffic.lab import until
from .room import BEGIN, QUERY
from .server import Connection
from .streams import ENDLESS


def checks(server, front):
    kept = Connection(front.at("graph"))
    check("before a restart: a query", kept.ask("POST", QUERY, {"statement": "RETURN 1"}).status == 202)
    for kill in [False, True]:
        once(server, front, kept, "kill -9" if kill else "SIGTERM", kill)


def once(server, front, kept, name, kill):
    begun = front.query("graph", "CREATE (:Unfinished)", path=BEGIN)
    path = f"{BEGIN}/{begun.json['transaction']['id']}"
    connection = Connection(front.at("graph"))
    response = connection.begin("POST", QUERY, {"statement": ENDLESS})
    response.read1(1000)
    began = time.monotonic()
    server.stop(kill)
    figure(f"{name}: the server was gone after {time.monotonic() - began:.1f} s")
    try:
        # What is left of it must not look whole.
        while response.read(1 << 20):
            pass
        broken = response.isclosed() and not response.chunked
    except (http.client.HTTPException, OSError):
        broken = True
    check(f"{name}: an answer that was running breaks off, and does not end as if whole", broken)
    connection.close()
    answer = front.query("graph", "RETURN 1")
    check(f"{name}: meanwhile 502, in Neo4j's shape", (answer.status, answer.own) == (502, "upstream_unreachable")
          and answer.code and answer.message, answer)
    with contextlib.suppress(OSError, http.client.HTTPException):
        kept.close()
    server.start()
    answer = kept.ask("POST", QUERY, {"statement": "RETURN 1"})
    check(f"{name}: it is back, and the first query is served", answer.status == 202, answer)
    answer = front.query("graph", "RETURN 1", path=path)
    check(f"{name}: a transaction from before is gone, as the server says", (answer.status, answer.own) == (404, None), answer)
    left = front.query("graph", "MATCH (n:Unfinished) RETURN count(n)")
    check(f"{name}: and nothing of it was done", left.values == [[0]], left)
    many = [front.query("graph", "RETURN 1").status for _ in range(20)]
    check(f"{name}: and so are the next ones", many == [202] * 20, many)
    tls = until(lambda: front.query("tls", "RETURN 1").status == 202, seconds=10)
    check(f"{name}: and over TLS", tls)
