"""`read_only`: does the server refuse to write in the access mode that sidekey sets?"""

import json

from support import check, figure
from .room import BEGIN, ERRORS, OLD, QUERY
from .server import OTHER, Connection

REFUSED = f"{ERRORS}Statement.AccessMode"
COUNT = "MATCH (n) RETURN count(n)"
TYPED = "application/vnd.neo4j.query"
WRITES = [
    "CREATE (:Mine)", "MERGE (:Mine {a: 1})", "MATCH (n) DETACH DELETE n", "MATCH (n) SET n.a = 1", "MATCH (n) REMOVE n:Person",
    "CREATE INDEX mine IF NOT EXISTS FOR (n:Mine) ON (n.a)", "CREATE CONSTRAINT one IF NOT EXISTS FOR (n:Mine) REQUIRE n.a IS UNIQUE",
    "CALL db.createLabel('Mine')", "CALL db.createProperty('mine')", "CALL { CREATE (:Mine) } IN TRANSACTIONS",
    "UNWIND [1] AS n CALL { WITH n CREATE (:Mine) } RETURN n", "PROFILE CREATE (:Mine)", "CYPHER planner=cost CREATE (:Mine)",
]
# What concerns the whole server.
ADMINISTRATION = ["CREATE USER mine SET PASSWORD 'longenough'", f"ALTER USER {OTHER} SET PASSWORD CHANGE REQUIRED",
                  f"DROP USER {OTHER}"]


def checks(server, front):
    def straight(statement, path=QUERY):
        return server.ask("POST", path, {"statement": statement}).values

    before, labels = straight(COUNT), straight("CALL db.labels()")
    users = straight("SHOW USERS YIELD user, passwordChangeRequired RETURN * ORDER BY user", "/db/system/query/v2")
    answer = front.query("reader", COUNT)
    check("read-only: what reads, passes", answer.values == before, answer)
    for accept in ["application/json", TYPED, f"{TYPED}.v1.0", "application/jsonl"]:
        given = {"n": {"$type": "Integer", "_value": "1"}} if "vnd" in accept else {"n": 1}
        sent = accept if "vnd" in accept else "application/json"
        body = {"statement": "RETURN $n AS n", "parameters": given}
        by_itself = server.ask("POST", QUERY, body, headers={"Accept": accept, "Content-Type": sent})
        answer = front.ask("reader", "POST", QUERY, body, Accept=accept, Content_Type=sent)
        check(f"read-only: {sent} to {accept} is read as the server reads it ({by_itself.status})",
              (answer.status, answer.own) == (by_itself.status, None), f"{answer} ≠ {by_itself}")
    refused(front)
    within(front)
    spelled(front)
    administration(server, front)
    after = straight(COUNT), straight("CALL db.labels()")
    check("read-only: nothing was written", after == (before, labels), after)
    check("read-only: no user changed", straight("SHOW USERS YIELD user, passwordChangeRequired RETURN * ORDER BY user",
                                                 "/db/system/query/v2") == users)


def refused(front):
    for statement in WRITES:
        answer = front.query("reader", statement, accessMode="WRITE")
        old = front.ask("reader", "POST", f"{OLD}/commit", {"statements": [{"statement": statement}]}, Access_Mode="WRITE")
        check(f"read-only: the server refuses {statement}", (answer.status // 100, answer.code) == (4, REFUSED)
              and old.code == REFUSED, f"{answer} {old}")


def within(front):
    """A transaction has the mode that it began in."""
    begun = front.query("reader", "RETURN 1", path=BEGIN, accessMode="WRITE")
    path = f"{BEGIN}/{begun.json.get('transaction', {}).get('id')}"
    answer = front.query("reader", "CREATE (:Mine)", path=path, accessMode="WRITE")
    check("read-only: within a transaction of the Query API", answer.code == REFUSED, f"{begun} {answer}")
    begun = front.ask("reader", "POST", OLD, {"statements": []}, Access_Mode="WRITE")
    path = begun.headers["Location"].removeprefix(front.at("reader"))
    answer = front.ask("reader", "POST", path, {"statements": [{"statement": "CREATE (:Mine)"}]}, Access_Mode="WRITE")
    check("read-only: within one of the older API", answer.code == REFUSED, f"{begun} {answer}")
    # One that may write, begun on another route.
    begun = front.query("graph", "RETURN 1", path=BEGIN)
    path = f"{BEGIN}/{begun.json['transaction']['id']}"
    answer = front.query("reader", "CREATE (:Mine)", path=path)
    check("read-only: another route's transaction does not go on", answer.own == "not_allowed", answer)
    check("and goes on where it began", front.ask("graph", "DELETE", path).status == 200)


def spelled(front):
    """The mode is said in the body; whoever says it otherwise is overruled for this server's parser too."""
    statement = json.dumps("CREATE (:Mine)")
    for body in [
        f'{{"accessMode":"READ","statement":{statement},"accessMode":"WRITE"}}',
        f'{{"statement":{statement},"access\\u004dode":"WRITE"}}',
        f'{{"statement":{statement},"ACCESSMODE":"WRITE"}}',
        f'{{"statement":{statement},"accessMode":null}}',
        f'{{"statement":"RETURN 1","statement":{statement}}}',
        f' \n{{"statement" : {statement} }} ',
    ]:
        answer = front.ask("reader", "POST", QUERY, body)
        check(f"read-only: {body.strip()}", answer.status in (400, 403) and answer.code != "N/A"
              and not answer.json.get("data"), answer)
    utf16 = f'{{"statement":{statement},"accessMode":"WRITE"}}'.encode("utf-16")
    answer = front.ask("reader", "POST", QUERY, utf16)
    check("read-only: a body in another encoding, which the server's parser would guess", answer.own == "not_allowed", answer)
    answer = Connection(front.at("reader")).ask("POST", f"{OLD}/commit", {"statements": [{"statement": "CREATE (:Mine)"}]},
                                                {"access_mode": "WRITE", "Access-mode": "WRITE"})
    check("read-only: the older API's header twice", answer.code == REFUSED, answer)


def administration(server, front):
    """The mode is for data. What of a server's administration heeds it, is told, not promised."""
    heeded = []
    for statement in ADMINISTRATION:
        answer = front.query("reader", statement, path="/db/system/query/v2")
        heeded.append(answer.code == REFUSED)
        figure(f"in the access mode READ: {statement.split(' SET ')[0]}: {answer.status} {answer.code}")
    check("read-only: the server refuses its administration too", all(heeded), heeded)
