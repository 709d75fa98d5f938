"""Many requests at once by HTTP/2."""

import pathlib
import re
import subprocess

from support import Standins, Tools, check, command, figure, number
from . import lab

REQUESTS = number("H2LOAD_REQUESTS", 20_000)
CONNECTIONS, STREAMS = 8, 20


def suite_h2load(directory, _):
    """h2load, to an upstream of HTTP/2 and to one of HTTP/1.1: nothing fails."""
    h2load = Tools.program("h2load", "nghttp2-client")
    certificates = lab.Certificates(directory)
    files = pathlib.Path(directory) / "files"
    files.mkdir()
    (files / "small").write_bytes(b"small\n")
    with lab.Nghttpd(files) as http2, lab.Nghttpd(files, certificates=certificates) as sealed, Standins() as http1:
        routes = {
            "HTTP/2": (http2.url, 'http = "2"'),
            "HTTP/2 over TLS": (sealed.url, ""),
            "HTTP/1.1": (http1.urls["neon"], ""),
        }
        with lab.Front(directory, certificates, routes) as sidekey:
            for route in routes:
                for tls in [False, True]:
                    words = ["-n", REQUESTS, "-c", CONNECTIONS, "-m", STREAMS, f"{sidekey.base(route, tls)}/small"]
                    ran = command(h2load, *words, stdout=subprocess.PIPE)
                    told = re.search(r"requests: .*", ran.stdout)
                    found = dict((what, int(count)) for count, what in re.findall(r"(\d+) (\w+)", told[0]))
                    codes = re.search(r"status codes: .*", ran.stdout)[0]
                    rate = re.search(r"finished in .*", ran.stdout)[0]
                    figure(f"{rate}; {told[0]}; {codes}")
                    well = found["succeeded"] == REQUESTS and codes.startswith(f"status codes: {REQUESTS} 2xx,")
                    check(f"{CONNECTIONS} connections × {STREAMS} streams{' over TLS' if tls else ''} to {route}: "
                          f"{REQUESTS} requests, none failed, none errored",
                          well and not found["failed"] and not found["errored"] and not found["timeout"], ran.stdout)
            figure(f"VmRSS, VmHWM {sidekey.memory()} kB")


SUITES = {"h2load": suite_h2load}
