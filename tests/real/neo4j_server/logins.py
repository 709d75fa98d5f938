"""What the server says of credentials, and what comes of it by way of sidekey."""

import json
import pathlib
import time

from support import check, figure
from traffic.lab import until
from .room import ERRORS, QUERY
from .server import FAILURES, LOCKED_FOR, OTHER, PASSWORD, Connection, basic

PARSE = pathlib.Path(__file__).with_name("Parse.java")
UNAUTHORIZED, MALFORMED = f"{ERRORS}Security.Unauthorized", f"{ERRORS}Request.InvalidFormat"
CHALLENGE = 'Basic realm="Neo4j", Bearer realm="Neo4j"'
BODY = {"statement": "RETURN 1 AS n"}


def checks(server, front):
    facts(server)
    parser(server)
    wrong_password(server, front)
    bearer(front)
    changed_password(server, front)


def facts(server):
    """What the stand-in of Neo4j imitates, and where the server's documents say something else."""
    for value, status, code, message in [
        (None, 401, UNAUTHORIZED, "No authentication header supplied."),
        # The documents have 401 for these.
        ("Basic not-proper-base64", 400, MALFORMED, "Invalid authentication header."),
        ("Basic bmVvNGo=", 400, MALFORMED, "Invalid authentication header."),
        ("Basic", 400, MALFORMED, "Invalid authentication header."),
        ("Digest bmVvNGo6YTpi", 400, MALFORMED, "Invalid authentication header."),
        ("Bearer a b", 400, MALFORMED, "Invalid authentication header."),
        ("", 400, MALFORMED, "Invalid authentication header."),
        ("Bearer abc", 401, UNAUTHORIZED, "Unsupported authentication token, scheme 'bearer' is not supported."),
    ]:
        headers = {} if value is None else {"Authorization": value}
        answer = server.ask("POST", QUERY, BODY, user=None, headers=headers)
        check(f"the server by itself: Authorization: {value}", (answer.status, answer.code, answer.message)
              == (status, code, message) and answer.headers["Content-Type"] == "application/json;charset=utf-8"
              and answer.headers["WWW-Authenticate"] == (CHALLENGE if status == 401 else None), answer)
    word = basic("neo4j", PASSWORD).split()[1]
    for value in [f"bAsIc {word}", f"Basic  {word}", f"Basic {word.rstrip('=')}"]:
        answer = server.ask("POST", QUERY, BODY, user=None, headers={"Authorization": value})
        check(f"the server by itself: {value.replace(word.rstrip('='), '…')} is understood", answer.status == 202, answer)


def parser(server):
    """A token in base64, as its documents have it: no server without single sign-on tells; its parser does."""
    values = ["Bearer abc", "Bearer YWJj", "bearer YWJjCg=="]
    parsed = server.artifacts.run(PARSE, *values).splitlines()
    check("the server's parser takes the word after Bearer as it is, and decodes nothing", parsed
          == ["BEARER abc", "BEARER YWJj", "BEARER YWJjCg=="], parsed)


def wrong_password(server, front):
    """A static secret that is wrong: sidekey does not try again, as failures lock the user. Three requests that are refused
    before the lock are three tries."""
    began = time.monotonic()
    answers = [front.query("wrong", "RETURN 1") for _ in range(FAILURES + 1)]
    for answer in answers[:FAILURES]:
        check("a wrong password: the server's 401 passes as it is", (answer.status, answer.own, answer.code, answer.message)
              == (401, None, UNAUTHORIZED, "Invalid credential.") and answer.headers["WWW-Authenticate"] == CHALLENGE, answer)
    locked = answers[FAILURES]
    check("a wrong password: after three, its 429 passes, which says not for how long in Retry-After",
          (locked.status, locked.own, locked.code, locked.headers["Retry-After"])
          == (429, None, f"{ERRORS}Security.AuthenticationRateLimit", None), locked)
    check("a wrong password: its message", locked.message
          == f"Too many failed authentication requests. Please wait {LOCKED_FOR} seconds and try again.", locked)
    straight = server.ask("POST", QUERY, BODY, user=OTHER)
    check("the user is locked for everybody, with the right password too", straight.status == 429, straight)
    check("another user is not locked", front.query("graph", "RETURN 1").status == 202)
    # The secret's file is put right: sidekey looks at it each second, and the lock ends by itself.
    (front.secrets / "new").write_text(PASSWORD)
    (front.secrets / "new").chmod(0o600)
    (front.secrets / "new").rename(front.secrets / "wrong")
    served = until(lambda: server.ask("POST", QUERY, BODY, user=OTHER).status == 202, seconds=3 * LOCKED_FOR, pause=0.2)
    figure(f"the server let the user in again {time.monotonic() - began:.1f} s after the first failure")
    check("the lock ends by itself", served)
    answer = front.query("wrong", "RETURN 1")
    check("the file put right: the next request is served, without a restart", answer.status == 202, answer)


def bearer(front):
    """A server without single sign-on takes no bearer."""
    for route in ["bearer", "basic64"]:
        answer = front.query(route, "RETURN 1")
        check(f"{route}: the server's refusal passes as it is", (answer.status, answer.own, answer.code)
              == (401, None, UNAUTHORIZED) and "scheme 'bearer' is not supported" in answer.message, answer)
    answer = front.query("none", "RETURN 1")
    check("no credential: the server's refusal passes as it is", (answer.status, answer.own, answer.message)
          == (401, None, "No authentication header supplied."), answer)
    shown = Connection(front.at("none")).ask("POST", QUERY, json.dumps(BODY), {"Authorization": basic("neo4j", PASSWORD)})
    check("no credential: one that the caller shows does not pass", shown.status == 401, shown)


def changed_password(server, front):
    """The password is changed on the server first, then in the file: a request that is refused is sent again."""
    new = PASSWORD[::-1].strip() + "?"
    change = {"statement": f"ALTER USER {OTHER} SET PASSWORD $new CHANGE NOT REQUIRED", "parameters": {"new": new}}
    check("a password is changed", server.ask("POST", "/db/system/query/v2", change).status == 202)
    file = front.secrets / "wrong"
    file.write_text(new)
    answers = [front.query("wrong", "RETURN 1").status for _ in range(FAILURES + 2)]
    check("a changed password: no request fails, whether the file was read before or after the refusal",
          answers == [202] * len(answers), answers)
