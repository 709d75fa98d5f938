"""One server, and sidekey in front of it, for all checks."""

import pathlib
import subprocess

from support import ROOT, check, command
from clients.suite import wrapper_script
from traffic.lab import Certificates
from . import apis, callers, logins, read_only, restart, secure, streams
from .room import Front
from .server import Artifacts, Server


def suite_neo4j(directory, tools):
    """A real Neo4j server: both its APIs, streams, logins, access modes, TLS, HTTP/2, restarts."""
    directory = pathlib.Path(directory)
    artifacts = Artifacts(directory)
    with Server(directory, artifacts, Certificates(directory)) as server:
        with Front(directory / "front", server) as front:
            apis.checks(server, front)
            streams.checks(server, front)
            logins.checks(server, front)
            read_only.checks(server, front)
            callers.checks(server, directory / "callers")
            secure.checks(server, front)
            clients(front, tools)
            restart.checks(server, front)


def clients(front, tools):
    """The official driver, for which a URI of http is the Query API; Bolt does not pass through sidekey."""
    script = ROOT / "tests" / "real" / "neo4j_driver.py"
    ran = command(tools.python, script, front.at("graph"), "someone", "else", "any", stdout=subprocess.PIPE,
                  stderr=subprocess.STDOUT)
    check("the official Neo4j driver runs queries and transactions on a real server", ran.returncode == 0, ran.stdout[-3000:])
    wrapper_script(tools, front.at("graph"))


SUITES = {"neo4j": suite_neo4j}
