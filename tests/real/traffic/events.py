"""Server-sent events."""

import shutil
import subprocess

from support import Process, check, debian
from . import lab

EVENTS = 20


def suite_sse(directory, tools):
    """Each event reaches the caller before the next one is sent, whatever both sides speak."""
    if not shutil.which("curl"):
        debian("curl")
    certificates = lab.Certificates(directory)
    with lab.Origin(tools, certificates=certificates) as origin:
        routes = {
            "HTTP/1.1": (origin.urls["1.1"], 'http = "1.1"'),
            "HTTP/2": (origin.urls["2"], 'http = "2"'),
            "HTTP/2 over TLS": (origin.urls["tls"], ""),
        }
        with lab.Front(directory, certificates, routes) as sidekey:
            for caller in lab.callers(certificates):
                for route in routes:
                    lock_step(f"{caller.name} to {route}", caller, sidekey.base(route, caller.tls), origin)


def lock_step(label, caller, base, origin):
    words = ["curl", "-sSN", "-m", 60, *caller.words, f"{base}/events"]
    with Process(*words, quiet=True, stdout=subprocess.PIPE) as client:
        lines = iter(client.child.stdout.readline, "")
        first = [next(lines, ""), next(lines, "")]
        came = 0
        for number in range(EVENTS):
            told = origin.ask({"event": f"event {number}"})
            # The next one is not sent before this one is here; curl gives up if it never comes.
            got = [next(lines, ""), next(lines, "")]
            if told != 1 or got != [f"data: event {number}\n", "\n"]:
                break
            came += 1
        origin.ask({"event": None})
        rest, code = client.child.stdout.read(), client.child.wait(60)
    check(f"{label}: {EVENTS} events, in lock-step, and the end",
          first[0].startswith(":") and came == EVENTS and not rest and code == 0, f"{first} {came} {rest!r} {code}")


SUITES = {"sse": suite_sse}
