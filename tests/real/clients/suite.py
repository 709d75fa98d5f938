"""Neon's libraries, against its stand-in. Those of Neo4j run against a real server (neo4j_server), those of Aura in guard."""

import subprocess

from support import Sidekey, Standins, adopt, check, command

# As tests/real/standins.rs has it.
CONNECTION_STRING = "postgresql://app:verysecret@db.neon.example/neondb"


def node_script(tools, script, count, *arguments):
    """Runs one of this folder's scripts, and takes its checks over."""
    ran = command("node", tools.clients / script, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    adopt(ran.stdout)
    told = sum(line.startswith(("ok      ", "FAILED  ")) for line in ran.stdout.splitlines())
    check(f"{script}: every check had its turn", (ran.returncode, told) == (0, count), ran.stdout[-3000:])


def wrapper_script(tools, url):
    """The one that needs a bundler, as its users have one."""
    words = ["--bundle", "--platform=node", "--log-level=error", "--outfile=query_api_wrapper.cjs", "query_api_wrapper.mjs"]
    command(tools.clients / "node_modules" / ".bin" / "esbuild", *words, cwd=tools.clients, check=True)
    node_script(tools, "query_api_wrapper.cjs", 5, url)


def suite_neon_clients(directory, tools):
    """Neon's API client, and the HTTP queries of its serverless driver."""
    with Standins() as standins:
        config = f"""
[server]
listen = "127.0.0.1:0"
[route.neon]
provider = "neon"
path = "/neon"
upstream = "{standins.urls['neon']}"
credential = {{ type = "bearer", token = {{ value = "neon-key" }} }}
[route.sql]
path = "/sql-over-http"
upstream = "{standins.urls['neon'].removesuffix('/api/v2')}"
credential = {{ type = "header", name = "Neon-Connection-String", value = {{ value = "{CONNECTION_STRING}" }} }}
[route.other]
path = "/other"
provider = "neon"
upstream = "{standins.urls['neon']}"
credential = false
"""
        with Sidekey(directory, config) as sidekey:
            node_script(tools, "neon.mjs", 7, f"{sidekey.url}/neon", f"{sidekey.url}/sql-over-http/sql")
        stats = standins.stats()["neon"]
        check("none of their requests was refused", stats["refusals"] == 0, stats)


SUITES = {"neon-clients": suite_neon_clients}
