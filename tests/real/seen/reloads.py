"""Another configuration, and another process, under load: no request fails of it."""

import json
import pathlib
import shutil
import signal
import tempfile
import threading
import time
import urllib.request

from support import WITHOUT_ADMIN, Sidekey, Standins, check, figure, free_port, load, number

RELOADS = number("RELOADS", 200)
RESTARTS = number("RESTARTS_SIDEKEY", 20)
CONNECTIONS = 64
PATIENCE = 30


def configuration(urls, listen, admin, routes=1, more=""):
    """A route to the stand-in that takes everything, and others that nobody asks for."""
    text = f"""
[server]
listen = "127.0.0.1:{listen}"
admin = "127.0.0.1:{admin}"
workers = 2
drain_delay = "500ms"
[route.aura]
provider = "aura"
path = "/"
upstream = "{urls['aura']}"
credential = "aura"
[credential.aura]
type = "aura"
token_url = "{urls['aura']}/oauth/token"
client_id = "client-1"
client_secret = {{ value = "secret-1" }}
{more}
"""
    for route in range(1, routes):
        text += f'[route.r{route}]\npath = "/r{route}"\nupstream = "{urls["aura"]}"\ncredential = false\n'
    return text


class Loading:
    """Connections that are busy until it is left."""

    def __init__(self, *arguments):
        self.found = {}
        self.over = pathlib.Path(tempfile.mkdtemp()) / "over"
        self.thread = threading.Thread(target=lambda: self.found.update(
            load("--connections", CONNECTIONS, "--until", self.over, *arguments)))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.touch()
        self.thread.join()
        shutil.rmtree(self.over.parent)


def until(what, is_so):
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not after {PATIENCE} s: {what}")
        time.sleep(0.01)


def suite_reloads(directory, _):
    """Reloads under load, of configurations that are right and wrong: all requests are answered, and nothing grows."""
    admin, environment = free_port(), {**WITHOUT_ADMIN, "XDG_RUNTIME_DIR": str(directory)}
    environment.pop("SIDEKEY_ADMIN", None)
    with Standins() as standins:
        plain = configuration(standins.urls, 0, admin)
        # In turn: other routes, a wrong key, another credential, no such credential, other limits, garbage.
        texts = [
            configuration(standins.urls, 0, admin, routes=40),
            plain + "colour = 1\n",
            plain.replace("client-1", "client-2").replace("secret-1", "secret-2"),
            plain.replace('credential = "aura"', 'credential = "nowhere"'),
            plain.replace("[server]", '[server]\nidle_timeout = "7m"'),
            "garbage",
        ]
        with Sidekey(directory, plain, env=environment) as sidekey:
            def counts():
                with urllib.request.urlopen(f"http://127.0.0.1:{admin}/status", timeout=PATIENCE) as answer:
                    told = json.load(answer)["reloads"]
                return told["taken_up"], told["refused"]

            with Loading(sidekey.url + "/v1/instances") as loading:
                after = {}
                for reload in range(1, RELOADS + 1):
                    sidekey.file.write_text(texts[reload % len(texts)])
                    sidekey.child.send_signal(signal.SIGHUP)
                    until(f"reload {reload}", lambda: sum(counts()) == reload)
                    if reload in (10, RELOADS):
                        # What earlier configurations hold goes with the last request that began under them.
                        time.sleep(1)
                        after[reload] = sidekey.memory()[0], sidekey.files()
            found, (taken_up, refused) = loading.found, counts()
            figure(f"{RELOADS} reloads ({taken_up} taken up, {refused} refused) under {CONNECTIONS} connections: "
                   f"{found['requests']} requests, {found['statuses']}, {found['broken'] or 'nothing broke off'}")
            figure(f"resident and open files after 10 reloads {after[10]}, after {RELOADS} {after[RELOADS]}")
            check("half of the reloads are refused, and half are taken up", taken_up == refused or
                  abs(taken_up - refused) == 1 or RELOADS % len(texts), (taken_up, refused))
            check("no request fails while configurations come and go", not found["broken"] and
                  set(found["statuses"]) == {"200"}, found)
            check(f"memory after {RELOADS} reloads is within 2 MiB of after 10",
                  after[RELOADS][0] - after[10][0] <= 2048, after)
            check("open files do not grow", after[RELOADS][1] - after[10][1] <= CONNECTIONS // 4, after)


def suite_restarts(directory, _):
    """Two instances, of which one after the other is ended by SIGTERM and started again, under balanced load."""
    ports = [free_port(), free_port()]
    with Standins() as standins:
        folders = [pathlib.Path(directory) / name for name in ("a", "b")]
        def start(turn):
            folders[turn].mkdir(exist_ok=True)
            text = configuration(standins.urls, ports[turn], 0).replace('admin = "127.0.0.1:0"', "admin = false")
            return Sidekey(folders[turn], text, quiet=True)

        running = [start(0), start(1)]
        try:
            with Loading("--balance", *(f"http://127.0.0.1:{port}/v1/instances" for port in ports)) as loading:
                statuses = []
                for restart in range(RESTARTS):
                    turn = restart % 2
                    running[turn].child.send_signal(signal.SIGTERM)
                    statuses.append(running[turn].child.wait(PATIENCE))
                    running[turn] = start(turn)
                    time.sleep(0.2)
            found = loading.found
            figure(f"{RESTARTS} restarts of two instances under {CONNECTIONS} connections: {found['requests']} requests, "
                   f"{found['statuses']}, {found['broken'] or 'nothing broke off'}")
            check("each instance that is told to end exits with 0", set(statuses) == {0}, statuses)
            check("no request fails while instances come and go", not found["broken"] and
                  set(found["statuses"]) == {"200"}, found)
        finally:
            for sidekey in running:
                sidekey.__exit__(None, None, None)


SUITES = {"reloads": suite_reloads, "restarts": suite_restarts}
