"""Callers behind one credential: to the server they are one user; sidekey keeps their transactions apart."""

from support import Sidekey, check
from .room import BEGIN, OLD
from .server import OTHER, PASSWORD, USER, Connection

TOKENS = {name: f"the-token-of-{name}-0123456789" for name in ("ann", "bob")}


def configuration(server):
    callers = "".join(f'[caller.{name}]\ntoken = {{ value = "{token}" }}\n' for name, token in TOKENS.items())
    return f"""
[server]
listen = "127.0.0.1:0"
[route.graph]
provider = "neo4j"
listen = "127.0.0.1:0"
upstream = "{server.url}"
credential = {{ type = "basic", username = "{USER}", password = {{ value = "{PASSWORD}" }} }}
{callers}"""


def checks(server, directory):
    directory.mkdir()
    with Sidekey(directory, configuration(server)) as sidekey:
        url = "http://" + sidekey.addresses[-1]

        def ask(caller, method, path, body=None):
            headers = {"Sidekey-Token": TOKENS[caller]} if caller else {}
            return Connection(url).ask(method, path, body, headers)

        query, statements = {"statement": "RETURN 1"}, {"statements": []}
        for name, begin, body, found in [
            ("the Query API", BEGIN, query, lambda begun: f"{BEGIN}/{begun.json['transaction']['id']}"),
            ("the older API", OLD, statements, lambda begun: begun.headers["Location"].removeprefix(url)),
        ]:
            begun = ask("ann", "POST", begin, body)
            path = found(begun)
            for method, where in [("POST", path), ("POST", f"{path}/commit"), ("DELETE", path)]:
                answer = ask("bob", method, where, body)
                check(f"callers, {name}: another caller's {method} {where.removeprefix(path) or 'statement'} is refused",
                      (answer.status, answer.own) == (403, "not_allowed"), answer)
            for where in [f"{path};x", path.replace("/tx", "//tx"), path.replace("/tx", "/%74x")]:
                answer = ask("bob", "POST", where, body)
                check(f"callers, {name}: nor does another spelling help: {where.replace(path, '…')}",
                      answer.own in ("not_allowed", "bad_request"), answer)
            check(f"callers, {name}: without a token, nobody goes on with it", ask(None, "POST", path, body).own == "caller_unknown")
            check(f"callers, {name}: it has gone on for the one who began it", ask("ann", "POST", path, body).status in (200, 202))
            # What sidekey is there for: to the server, all of them are its user.
            check(f"callers, {name}: the server by itself would let its user go on", server.ask("POST", path, body).status
                  in (200, 202))
            stranger = server.ask("POST", path, body, user=OTHER, password=PASSWORD[::-1].strip() + "?")
            check(f"callers, {name}: and no other user", stranger.status == 404, stranger)
            check(f"callers, {name}: and it ends", ask("ann", "POST", f"{path}/commit", {} if begin == BEGIN else statements).status
                  in (200, 202))
