"""systemd's own tool hands a socket over, and the callers that came first are answered."""

import http.client
import http.server
import os
import pathlib
import re
import shutil
import socket
import threading
import time

from support import Sidekey, Tools, check, figure, free_port

UNIT = pathlib.Path(__file__).resolve().parents[3] / "deploy" / "systemd" / "sidekey.socket"


class Upstream(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


def suite_activation(directory, tools):
    """systemd-socket-activate starts sidekey for the first caller; the notify socket gets what systemd.service(5) names."""
    if not shutil.which("systemd-socket-activate"):
        Tools.program("systemd-socket-activate", "systemd")
    directory = pathlib.Path(directory)
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    # As the unit names it.
    name = re.search(r"^FileDescriptorName=(.*)$", UNIT.read_text(), re.M)[1]
    config = (f'[server]\nlisten = "systemd:{name}"\n[route.up]\ncredential = false\n'
              f'upstream = "http://127.0.0.1:{upstream.server_address[1]}"\n')
    port, path, notify = free_port(), directory / "local.sock", socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(f"\0sidekey-activation-{os.getpid()}")
    notify.settimeout(10)
    answers = []
    callers = [threading.Thread(target=first_caller, args=(port, f"/{number}", answers)) for number in range(8)]
    for caller in callers:
        caller.start()
    wrapper = ["systemd-socket-activate", "-l", f"127.0.0.1:{port}", "-l", path, f"--fdname={name}",
               "-E", "SIDEKEY_ADMIN=false", "-E", f"NOTIFY_SOCKET=@sidekey-activation-{os.getpid()}",
               "-E", "WATCHDOG_USEC=400000"]
    with Sidekey(directory, config, wrapper=wrapper) as sidekey:
        for caller in callers:
            caller.join()
        check("each of the callers that came before it is answered",
              sorted(answers) == [(200, f"/{number}".encode()) for number in range(8)], answers)
        check("it listens where systemd does", sidekey.addresses == [f"127.0.0.1:{port}"], sidekey.addresses)
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(str(path))
            local.sendall(b"GET /local HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: local.recv(4096), b""))
        check("on the Unix socket as well", answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"/local"), answer)
        told = [notify.recv(4096).decode() for _ in range(6)]
        lines = [line for text in told for line in text.splitlines()]
        check("systemd is told that it is ready, first of all, then how it goes, and that it lives",
              lines[0] == "READY=1" and "STATUS=ready" in lines and lines.count("WATCHDOG=1") >= 3, lines)
        figure(" ".join(lines))
    # What was told before the end is still there.
    last = []
    while "STOPPING=1" not in last:
        last = notify.recv(4096).decode().splitlines()
    check("and that it stops", "STATUS=stopping" in last, last)
    upstream.shutdown()


def first_caller(port, path, answers):
    """Connects as soon as somebody listens."""
    until = time.monotonic() + 10
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.connect()
            break
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
    connection.request("GET", path)
    answer = connection.getresponse()
    answers.append((answer.status, answer.read()))


SUITES = {"activation": suite_activation}
