"""A name that leads elsewhere."""

import os
import pathlib
import shutil
import subprocess
import time

from support import check, figure, number
from . import lab

NAME = "upstream.example"
# For so long a connection is kept busy, to see it given up for its age, which is 5 minutes.
BUSY = number("DNS_SECONDS", 0)


def suite_dns(directory, tools):
    """An upstream's name gets another address: new connections go there, and kept ones end."""
    unshare = shutil.which("unshare")
    if not unshare or os.geteuid() or subprocess.run([unshare, "-m", "true"], capture_output=True).returncode:
        figure("left out: a private /etc/hosts needs root, and a mount namespace")
        return
    certificates = lab.Certificates(directory)
    hosts = pathlib.Path(directory) / "hosts"
    for version in ["1.1", "2"]:
        hosts.write_text(f"127.0.0.1 localhost\n127.0.0.2 {NAME}\n")
        port = lab.free_port()
        with (lab.Origin(tools, "first", "--host", "127.0.0.2", "--port", port, "--only", version),
              lab.Origin(tools, "second", "--host", "127.0.0.3", "--port", port, "--only", version)):
            moves(lab.below(directory, version), certificates, hosts, version, port, unshare)
    forbidden(lab.below(directory, "forbidden"), tools, certificates, hosts, unshare)


def wrapper(unshare, hosts):
    """What gives a command an /etc/hosts of its own."""
    return [unshare, "-m", "sh", "-c", f"mount --bind {hosts} /etc/hosts && exec \"$@\"", "sh"]


def forbidden(directory, tools, certificates, hosts, unshare):
    """Names that lead where credentials must not go."""
    names = {"metadata": ["169.254.169.254"], "local": ["169.254.7.7", "fe80::7"], "google": ["fd20:ce::254"],
             "wrapped": ["::ffff:169.254.169.254"], "nobody": ["0.0.0.0"], "mixed": ["169.254.169.254", "127.0.0.2"]}
    hosts.write_text("127.0.0.1 localhost\n" + "".join(
        f"{address} {name}.example\n" for name, addresses in names.items() for address in addresses))
    port = lab.free_port()
    extra = 'allow_cleartext = true\nconnect_timeout = "2s"\n'
    routes = {name: (f"http://{name}.example:{port}", extra) for name in names}
    with (lab.Origin(tools, "good", "--host", "127.0.0.2", "--port", port, "--only", "1.1"),
          lab.Front(directory, certificates, routes, wrapper=wrapper(unshare, hosts)) as sidekey):
        caller = lab.Caller("HTTP/1.1", ["--http1.1"], False)

        def ask(route):
            words = ["-w", "\n%{http_code} %header{sidekey-error} %header{proxy-status} %{time_total}"]
            _, out, err = lab.curl(caller, *words, f"{sidekey.base(route)}/")
            *answer, seconds = out.decode().split("\n")[-1].rsplit(" ", 1)
            return " ".join(answer), float(seconds), out.decode(), err

        refused = "502 upstream_unreachable sidekey; error=destination_ip_prohibited"
        for name in [name for name in names if name != "mixed"]:
            answer, seconds, *found = ask(name)
            check(f"{names[name]}: refused at once", answer == refused and seconds < 1, (answer, seconds, found))
        answer, _, *found = ask("mixed")
        check("an address that may be used is used, whatever stands beside it", answer.startswith("200 "),
              (answer, found))
        said = "metadata.example leads to 169.254.169.254, the address of a cloud's metadata service"
        check("the log names the address", said in sidekey.said(), sidekey.said()[-2000:])


def moves(directory, certificates, hosts, version, port, unshare):
    extra = f'http = "{version}"\nallow_cleartext = true\nidle_timeout = '
    url = f"http://{NAME}:{port}"
    routes = {"idle": (url, extra + '"1s"'), "busy": (url, extra + '"25s"')}
    with lab.Front(directory, certificates, routes, wrapper=wrapper(unshare, hosts)) as sidekey:
        http1 = lab.Caller("HTTP/1.1", ["--http1.1"], False)

        def name(route):
            code, out, err = lab.curl(http1, "-w", "%{http_code}", f"{sidekey.base(route)}/")
            asked.append((code, out.decode(), err))
            return out.decode().split("\n")[0]

        asked = []
        check(f"HTTP/{version}: the first address is served", [name("idle"), name("busy")] == ["first"] * 2, asked)
        # In place: the file that is mounted is this one.
        hosts.write_text(f"127.0.0.1 localhost\n127.0.0.3 {NAME}\n")
        began = time.monotonic()
        still = name("busy")
        figure(f"HTTP/{version}: a kept connection goes on to {still}")
        check(f"HTTP/{version}: a kept connection still leads to the first address", still == "first", asked[-1])
        # After a pause in which the connection idles for too long, each time a little longer.
        pause, seen = 0.5, name("idle")
        while seen == "first" and pause < 5:
            time.sleep(pause)
            pause, seen = pause + 0.5, name("idle")
        took = time.monotonic() - began
        figure(f"HTTP/{version}: idle_timeout = 1s: {seen} after {took:.1f} s, at a pause of {pause - 0.5:.1f} s")
        check(f"HTTP/{version}: once the kept connection has idled for idle_timeout, the second address is served",
              seen == "second" and pause - 0.5 <= 2, asked[-1])
        while BUSY and name("busy") == "first" and time.monotonic() - began < BUSY:
            # Far within its idle_timeout.
            time.sleep(0.2)
        if BUSY:
            took, now = time.monotonic() - began, name("busy")
            figure(f"HTTP/{version}: {len(asked)} requests; the busy connection leads to {now} after {took:.1f} s")
            check(f"HTTP/{version}: a connection that is always busy is given up after 5 minutes", now == "second",
                  took)
        bad = [answer for answer in asked if answer[0] or not answer[1].endswith("200")]
        check(f"HTTP/{version}: no request failed on the way", not bad, bad)


SUITES = {"dns": suite_dns}
