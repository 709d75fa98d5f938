"""What the server's APIs say, by way of sidekey: the same as without it, and URLs that lead back."""

import json
import urllib.parse

from support import check
from .room import BEGIN, OLD, QUERY
from .server import Connection

TYPED = "application/vnd.neo4j.query"
GIVEN = {"i": -7, "f": 1.5, "s": "ä\u0000\"", "l": [1, [None, True]], "m": {"k": "v"}, "n": None}


def checks(server, front):
    discovery(server, front)
    queries(server, front)
    transactions(front)
    old_transactions(front)
    refusals(server, front)


def discovery(server, front):
    """`/` needs no authentication, and says where the APIs are."""
    shared = front.url
    for name, answer, base in [
        ("a listener", front.ask("graph", "GET", "/"), front.at("graph")),
        ("a host", Connection(shared).ask("GET", "/", headers={"Host": f"graph.localhost:{shared.rpartition(':')[2]}"}),
         f"http://graph.localhost:{shared.rpartition(':')[2]}"),
        ("a listener without a credential", front.ask("none", "GET", "/"), front.at("none")),
    ]:
        found = answer.json
        wanted = {"query": base + "/db/{databaseName}/query/v2", "transaction": base + "/db/{databaseName}/tx"}
        check(f"discovery by {name}: every URL of HTTP leads back through sidekey",
              answer.status == 200 and {key: found.get(key) for key in wanted} == wanted
              and f":{server.port}" not in answer.body, answer)
        check(f"discovery by {name}: no page in a browser is let in", not any(
            header.lower().startswith("access-control-") for header in answer.headers), answer)
    check("the server by itself lets every page in", server.ask("GET", "/").headers["Access-Control-Allow-Origin"] == "*")
    found = front.ask("graph", "GET", "/", Accept="text/html")
    check("discovery for a browser: the redirect leads back", found.status == 303
          and found.headers["Location"].startswith(front.at("graph")), found)
    found = front.ask("graph", "GET", "/", X_Forwarded_Host="evil.example", X_Forwarded_Proto="https",
                      Forwarded="host=evil.example")
    check("a caller's X-Forwarded-Host does not count", "evil" not in found.body and front.at("graph") in found.body, found)


def queries(server, front):
    statement = "RETURN " + ", ".join(f"${name} AS {name}" for name in GIVEN)
    for name, base, path in [("a listener", front.at("graph"), QUERY), ("a path", front.url, "/graph" + QUERY)]:
        body = {"statement": statement, "parameters": GIVEN}
        answer = Connection(base).ask("POST", path, body, {"Authorization": "Basic bm9ib2R5OmF0IGFsbA=="})
        check(f"a query by {name}: parameters of every kind come and go; a user that the caller names does not count",
              (answer.status, answer.values) == (202, [list(GIVEN.values())]), answer)
    typed = {"statement": "RETURN $d AS d, $b AS b", "parameters": {
        "d": {"$type": "Date", "_value": "2024-02-29"}, "b": {"$type": "Base64", "_value": "AP8="}}}
    answer = front.ask("graph", "POST", QUERY, typed, Content_Type=TYPED, Accept=TYPED)
    check("a query with typed values", (answer.status, answer.headers["Content-Type"], answer.values)
          == (202, TYPED, [list(typed["parameters"].values())]), answer)
    answer = front.query("graph", "CREATE (p:Person {name: $name}) RETURN p.name", parameters={"name": "Zoë"},
                         includeCounters=True)
    check("a query that writes, with counters", answer.status == 202
          and answer.json["counters"]["nodesCreated"] == 1, answer)
    answer = front.query("graph", "MATCH (p:Person) RETURN count(p)", bookmarks=answer.json["bookmarks"])
    check("and one that reads on from its bookmark", answer.values == [[1]], answer)
    # Headers that a proxy adds or takes are its own affair; the rest is the server's.
    for name, method, path, body in [
        ("a mistake in Cypher", "POST", QUERY, {"statement": "OOPS"}),
        ("a missing parameter", "POST", QUERY, {"statement": "RETURN $missing"}),
        ("a division by zero", "POST", QUERY, {"statement": "RETURN 1/0"}),
        ("no statement", "POST", QUERY, {}), ("no JSON", "POST", QUERY, "{"),
        ("a database that is not there", "POST", "/db/nope/query/v2", {"statement": "RETURN 1"}),
        ("a GET", "GET", QUERY, None), ("a path that is not there", "GET", "/nowhere", None),
        ("a transaction that is not there", "POST", f"{BEGIN}/nope", {"statement": "RETURN 1"}),
        ("an older transaction that is not there", "POST", f"{OLD}/987654", {"statements": []}),
        ("a mistake in the older API", "POST", f"{OLD}/commit", {"statements": [{"statement": "OOPS"}]}),
        ("no JSON in the older API", "POST", f"{OLD}/commit", "{"),
    ]:
        straight, through = server.ask(method, path, body), front.ask("graph", method, path, body)
        check(f"errors: {name}: status, type and body are the server's own", through.own is None and straight.code
              and (straight.status, straight.headers["Content-Type"], straight.body)
              == (through.status, through.headers["Content-Type"], through.body), f"{straight} ≠ {through}")


def transactions(front):
    """Explicit transactions of the Query API."""
    count = "MATCH (n:Explicit) RETURN count(n)"
    begun = front.query("graph", "CREATE (:Explicit)", path=BEGIN)
    path = f"{BEGIN}/{begun.json.get('transaction', {}).get('id')}"
    check("transaction: it begins, with a statement", begun.status == 202 and not path.endswith("None"), begun)
    within, outside = front.query("graph", count, path=path), front.query("graph", count)
    check("transaction: what it does is seen in it, and not outside", (within.values, outside.values)
          == ([[1]], [[0]]), f"{within} {outside}")
    ended = front.query("graph", "CREATE (:Explicit)", path=f"{path}/commit")
    check("transaction: it commits, with a statement", ended.status == 202 and ended.json["bookmarks"], ended)
    check("transaction: after that it is seen", front.query("graph", count).values == [[2]])
    for name, end in [("a rollback", lambda path: front.ask("graph", "DELETE", path).status == 200),
                      ("a mistake", lambda path: front.query("graph", "OOPS", path=path).status == 400)]:
        begun = front.query("graph", "CREATE (:Explicit)", path=BEGIN)
        path = f"{BEGIN}/{begun.json['transaction']['id']}"
        check(f"transaction: {name} ends it", end(path) and front.ask("graph", "POST", f"{path}/commit", {}).status == 404)
    check("transaction: and nothing of those is left", front.query("graph", count).values == [[2]])


def old_transactions(front):
    """The older API's transactions, by the URLs that the server gives."""
    def follow(url, statement=None):
        where = urllib.parse.urlsplit(url)
        body = {"statements": [{"statement": statement}] if statement else []}
        return Connection(f"{where.scheme}://{where.netloc}").ask("POST", where.path, body)

    begun = front.ask("graph", "POST", OLD, {"statements": [{"statement": "CREATE (:Old)"}]})
    location, commit = begun.headers["Location"], begun.json.get("commit", "")
    check("older transaction: Location and commit lead back through sidekey", begun.status == 201
          and location.startswith(front.at("graph")) and commit == f"{location}/commit", begun)
    ran = follow(location, "CREATE (:Old) RETURN 1")
    check("older transaction: a statement at its Location", ran.status == 200 and ran.json["errors"] == [], ran)
    ended = follow(ran.json["commit"])
    check("older transaction: its commit URL, followed", ended.status == 200 and ended.json["errors"] == [], ended)
    check("older transaction: after that it is seen", front.query("graph", "MATCH (n:Old) RETURN count(n)").values == [[2]])
    check("older transaction: a second time it is not there", follow(commit).status == 404)
    begun = Connection(front.url).ask("POST", "/graph" + OLD, {"statements": []})
    location = begun.headers["Location"]
    check("older transaction: behind a path, Location has the path", location.startswith(f"{front.url}/graph{OLD}/"), begun)
    check("older transaction: and leads there", follow(location, "RETURN 1").json.get("errors") == [], location)
    rolled = Connection(front.url).ask("DELETE", urllib.parse.urlsplit(location).path)
    check("older transaction: a rollback", rolled.status == 200, rolled)
    several = front.ask("graph", "POST", f"{OLD}/commit", {"statements": [
        {"statement": f"RETURN {n} AS n", "includeStats": True} for n in range(3)]})
    check("older API: several statements at once", [result["data"][0]["row"] for result in several.json["results"]]
          == [[0], [1], [2]], several)


def refusals(server, front):
    """What sidekey refuses by itself is said as the server says things."""
    for name, answer, status, own in [
        ("a web page", front.ask("graph", "GET", "/", Origin="https://evil.example"), 403, "cross_site"),
        ("another Host", front.ask("graph", "GET", "/", Host="evil.example"), 403, "forbidden_host"),
        ("no route", Connection(front.url).ask("GET", "/nowhere"), 404, "no_route"),
    ]:
        check(f"sidekey's own: {name}", (answer.status, answer.own) == (status, own), answer)
        if own != "no_route":
            check(f"sidekey's own: {name}: in Neo4j's shape", sorted(json.loads(answer.body)["errors"][0])
                  == ["code", "message"], answer)
