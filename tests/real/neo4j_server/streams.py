"""Many rows in every form that the server has, counted exactly, in little memory; and callers that leave."""

import json
import time

from support import check, figure
from traffic.lab import until
from .room import OLD, QUERY
from .server import Connection

ROWS = 100_000
MEMORY_LIMIT = 32 << 10  # KiB
PIECE = 64 << 10
# Some 100 bytes each.
STATEMENT = "UNWIND range(1, $rows) AS n RETURN n, toString(n) + $filler AS text"
PARAMETERS = {"rows": ROWS, "filler": "ä" * 40}
# More than anyone waits for.
ENDLESS = "UNWIND range(1, 1000000000) AS n RETURN n"


def checks(server, front):
    for name, path, accept, body, rows in forms():
        began = time.monotonic()
        response = Connection(front.at("graph")).begin("POST", path, body, {"Accept": accept})
        if response.status == 406:
            straight = server.ask("POST", path, body, headers={"Accept": accept})
            check(f"{name}: this version of the server has no such form", straight.status == 406, straight)
            continue
        first, pieces = None, []
        while piece := response.read1(PIECE):
            first = first or time.monotonic()
            pieces.append(piece)
        text = b"".join(pieces).decode()
        seconds, memory = time.monotonic() - began, front.memory()
        figure(f"{name}: {len(text.encode()) / 1e6:.1f} MB in {seconds:.1f} s, the first after {first - began:.2f} s; "
               f"VmRSS, VmHWM {memory} kB")
        found = list(rows(text))
        check(f"{name}: {ROWS} rows, each once and in order", (response.status in (200, 202),
              response.headers["Content-Type"]) == (True, accept) and found == list(range(1, ROWS + 1)),
              f"{response.status} {response.headers['Content-Type']} {len(found)} rows: {text[:200]}")
        check(f"{name}: in less than {MEMORY_LIMIT >> 10} MiB", memory[1] < MEMORY_LIMIT, memory)
    upload(front)
    leaving(server, front)


def forms():
    """Each form's name, where it is asked for, its media type, what to ask, and its rows' numbers."""
    query = {"statement": STATEMENT, "parameters": PARAMETERS}
    old = {"statements": [query]}
    lines = lambda text: (json.loads(line) for line in text.split("\n") if line)
    yield "JSON", QUERY, "application/json", query, lambda text: (row[0] for row in json.loads(text)["data"]["values"])
    yield ("JSON with types", QUERY, "application/vnd.neo4j.query", query,
           lambda text: (int(row[0]["_value"]) for row in json.loads(text)["data"]["values"]))
    yield ("JSONL", QUERY, "application/jsonl", query,
           lambda text: (line["_body"][0] for line in lines(text) if line["$event"] == "Record"))
    yield ("JSON of the older API", f"{OLD}/commit", "application/json", old,
           lambda text: (row["row"][0] for row in json.loads(text)["results"][0]["data"]))
    # Each piece of a JSON text sequence begins with a record separator (RFC 7464).
    yield ("Jolt", f"{OLD}/commit", "application/vnd.neo4j.jolt-v2+json-seq", old,
           lambda text: (line["data"][0] for line in lines(text.replace("\x1e", "")) if "data" in line))


def upload(front):
    """Far more parameters than sidekey keeps of a body."""
    rows = [{"n": n, "text": "x" * 40} for n in range(ROWS)]
    body = {"statement": "UNWIND $rows AS row RETURN count(row), sum(row.n), sum(size(row.text))",
            "parameters": {"rows": rows}}
    answer = front.ask("graph", "POST", QUERY, body)
    size, memory = len(json.dumps(body)), front.memory()
    figure(f"a query of {size / 1e6:.1f} MB; VmRSS, VmHWM {memory} kB")
    check(f"{ROWS} rows as a parameter", answer.values == [[ROWS, sum(range(ROWS)), 40 * ROWS]], answer)
    check(f"a large parameter: in less than {MEMORY_LIMIT >> 10} MiB", memory[1] < MEMORY_LIMIT, memory)


def running(server):
    """How many queries without an end are running."""
    answer = server.ask("POST", QUERY, {"statement": "SHOW TRANSACTIONS YIELD currentQuery WHERE currentQuery = $endless "
                                                     "RETURN count(*)", "parameters": {"endless": ENDLESS}})
    return answer.values[0][0] if answer.values else answer.body


def leaving(server, front):
    """What a caller no longer wants, the server need not go on with."""
    for name, accept in [("JSON", "application/json"), ("JSONL", "application/jsonl")]:
        connection = Connection(front.at("graph"))
        response = connection.begin("POST", QUERY, {"statement": ENDLESS}, {"Accept": accept})
        if response.status == 406:
            continue
        piece = response.read1(PIECE)
        check(f"a query without an end, {name}: it comes while it runs", piece and running(server) == 1, running(server))
        # It stops reading, for which the server waits, and sidekey keeps no more than there was.
        before = front.memory()[0]
        stalled = until(lambda: front.memory()[0] > before + MEMORY_LIMIT, seconds=1, pause=0.1)
        check(f"a query without an end, {name}: a caller that does not read fills no memory", not stalled, front.memory())
        response.close()
        connection.close()
        ended = until(lambda: running(server) == 0, seconds=20, pause=0.1)
        check(f"a query without an end, {name}: the caller leaves, and the server ends it", ended, running(server))
