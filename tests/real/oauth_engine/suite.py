"""One Hydra for all checks."""

from support import free_port
from . import flows, shared
from .engine import Engine, build


def suite_hydra(directory, tools):
    """Ory Hydra, Neon's engine: client credentials, logins with PKCE, rotation, reuse, two processes on one store."""
    program = build(directory)
    port = free_port()
    redirect = f"http://127.0.0.1:{port}/callback"
    with Engine(program, directory / "engine", [redirect], access_ttl=3) as engine:
        flows.checks(engine, directory, port, redirect)
        shared.checks(engine, tools, directory / "shared", redirect)


SUITES = {"hydra": suite_hydra}
