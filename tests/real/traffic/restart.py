"""An upstream that is killed and comes back."""

import pathlib
import threading
import time

from support import all_well, check, figure, load, number
from . import lab

RESTARTS = number("RESTARTS_HTTP", 3)


def suite_restart(directory, tools):
    """An upstream that is killed and restarted under load: 200 or 502 and nothing else, and 200 once it is back."""
    certificates = lab.Certificates(directory)
    files = pathlib.Path(directory) / "files"
    files.mkdir()
    (files / "small").write_bytes(b"small\n")
    ports = {"HTTP/1.1": lab.free_port(), "HTTP/2": lab.free_port()}
    starts = {
        "HTTP/1.1": lambda: lab.Origin(tools, "small", "--port", ports["HTTP/1.1"], "--only", "1.1"),
        "HTTP/2": lambda: lab.Nghttpd(files, port=ports["HTTP/2"]),
    }
    routes = {name: (f"http://127.0.0.1:{port}", f'http = "{name[5:]}"') for name, port in ports.items()}
    with lab.Front(directory, certificates, routes) as sidekey:
        for name, start in starts.items():
            restarts(name, start, f"{sidekey.base(name)}/small", ports[name])


def restarts(name, start, url, port):
    upstream, found = start(), {}
    try:
        loading = threading.Thread(target=lambda: found.update(load("--connections", 16, "--seconds", 2 + 2 * RESTARTS,
                                                                    url)))
        loading.start()
        for _ in range(RESTARTS):
            time.sleep(1)
            upstream.child.kill()
            upstream.child.wait()
            # So long nobody listens.
            time.sleep(0.5)
            upstream = start()
            lab.until(lambda: lab.accepts(port))
        loading.join()
        statuses = found["statuses"]
        figure(f"{name}: {RESTARTS} restarts: {statuses}, {found['broken'] or 'nothing broke off'}")
        check(f"{name}: killed and restarted under load, the upstream's callers get 200 or 502",
              not found["broken"] and set(statuses) == {"200", "502"}, found)
        check(f"{name}: each 502 says why", all("upstream_unreachable" in body for body in found["bodies"]),
              found["bodies"])
        check(f"{name}: after the restart, all is well", all_well(load("--connections", 16, "--requests", 2000, url)))
    finally:
        upstream.__exit__()


SUITES = {"restart": suite_restart}
