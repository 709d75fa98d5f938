"""Queries that take their time."""

import concurrent.futures
import json
import shutil
import time

from support import check, debian, figure, number
from . import lab

SECONDS = number("SILENT_SECONDS", 20)


def suite_silent(directory, tools):
    """A query that is silent for long on a neo4j route is answered, whatever both sides speak."""
    if not shutil.which("curl"):
        debian("curl")
    certificates = lab.Certificates(directory)
    with lab.Origin(tools, certificates=certificates) as origin:
        # Nothing that limits idleness is about a query that runs.
        routes = {}
        for kind, url in {"HTTP/1.1": origin.urls["1.1"], "HTTP/2": origin.urls["tls"]}.items():
            routes[kind] = (url, 'provider = "neo4j"')
            routes[f"{kind}, idle_timeout 1 s"] = (url, 'provider = "neo4j"\nidle_timeout = "1s"')
        with (lab.Front(directory, certificates, routes) as usual,
              lab.Front(lab.below(directory, "short"), certificates, routes, 'idle_timeout = "1s"') as short,
              concurrent.futures.ThreadPoolExecutor(16) as pool):
            asked = {}
            for name, sidekey in {"defaults": usual, "idle_timeout 1 s": short}.items():
                for route in list(routes)[name != "defaults"::2]:
                    for caller in lab.callers(certificates):
                        label = f"{name}: {caller.name} to {route.split(',')[0]}"
                        asked[label] = pool.submit(query, caller, sidekey.base(route, caller.tls))
            for label, future in asked.items():
                code, took, body, err = future.result()
                right = not code and json.loads(body)["path"].startswith("/silent/") and SECONDS <= took
                check(f"{label}: answered after {SECONDS} s of silence", right, f"{code} {took:.1f} s {body} {err}")
                figure(f"after {took:.1f} s")


def query(caller, base):
    began = time.monotonic()
    code, out, err = lab.curl(caller, "-m", SECONDS + 60, "-H", "Content-Type: application/json", "-d",
                              '{"statement":"CALL apoc.util.sleep(1)"}', f"{base}/silent/{SECONDS}/db/neo4j/query/v2")
    return code, time.monotonic() - began, out, err


SUITES = {"silent": suite_silent}
