"""The routes of these suites, and what their checks have in common."""

import json

from support import Sidekey
from .server import OTHER, PASSWORD, USER, Connection

# Each with a listener of its own, in the order of their names.
ROUTES = ["basic64", "bearer", "graph", "h2c", "none", "reader", "tls", "tls-http1", "tls-stranger", "wrong"]
QUERY, BEGIN, OLD = "/db/neo4j/query/v2", "/db/neo4j/query/v2/tx", "/db/neo4j/tx"
ERRORS = "Neo.ClientError."


def configuration(server, secrets):
    """Every way to the server. `secrets`: a directory for their files."""
    for name, secret in [("password", PASSWORD), ("wrong", "wrong")]:
        file = secrets / name
        file.touch(0o600)
        file.write_text(secret)
    basic = f'credential = {{ type = "basic", username = "{USER}", password = {{ file = "{secrets}/password" }} }}'
    ca = f'tls = {{ ca = "{server.ca}" }}'
    routes = {
        "basic64": (server.url, 'credential = { type = "bearer", token = { value = "abc" }, encoding = "base64" }'),
        "bearer": (server.url, 'credential = { type = "bearer", token = { value = "abc" } }'),
        "graph": (server.url, f'path = "/graph"\nhost = "graph.localhost"\n{basic}'),
        "h2c": (server.url, f'http = "2"\n{basic}'),
        "none": (server.url, "credential = false"),
        "reader": (server.url, f"read_only = true\n{basic}"),
        "tls": (server.tls_url, f"{ca}\n{basic}"),
        "tls-http1": (server.tls_url, f'{ca}\nhttp = "1.1"\n{basic}'),
        "tls-stranger": (server.tls_url, basic),
        # A user of its own, as failures make their user wait.
        "wrong": (server.url, f'credential = {{ type = "basic", username = "{OTHER}", '
                              f'password = {{ file = "{secrets}/wrong" }} }}'),
    }
    assert list(routes) == ROUTES
    return '[server]\nlisten = "127.0.0.1:0"\n' + "".join(
        f'[route.{name}]\nprovider = "neo4j"\nlisten = "127.0.0.1:0"\nupstream = "{url}"\n{rest}\n'
        for name, (url, rest) in routes.items())


class Front(Sidekey):
    """A running sidekey in front of the server."""

    def __init__(self, directory, server):
        directory.mkdir()
        self.secrets = directory / "secrets"
        self.secrets.mkdir()
        super().__init__(directory, configuration(server, self.secrets))

    def at(self, route):
        """Where a route's own listener is; the shared one is before them all."""
        return "http://" + self.addresses[1 + ROUTES.index(route)]

    def ask(self, route, method, path, body=None, **headers):
        """One request by way of a route's listener."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return Connection(self.at(route)).ask(method, path, body, headers)

    def query(self, route, statement, path=QUERY, headers=None, **body):
        return Connection(self.at(route)).ask("POST", path, {"statement": statement, **body}, headers)


def tell(answer):
    """The short of it."""
    return json.dumps([answer.status, answer.own, answer.code, answer.values])
