"""Every version of HTTP on both sides, and bodies that an upstream does not want."""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import socket
import ssl
import subprocess

from support import Tools, check, debian, figure, number
from . import lab

MIB = 1 << 20
LARGE = number("LARGE_MIB", 16) * MIB
REFUSED = 32 * MIB
ROUNDS = 5


def suite_curl_versions(directory, tools):
    """curl in every version, to upstreams of every version; uploads that are refused unseen; trailers."""
    if not shutil.which("curl"):
        debian("curl")
    nghttp = Tools.program("nghttp", "nghttp2-client")
    certificates = lab.Certificates(directory)
    files = pathlib.Path(directory) / "files"
    files.mkdir()
    upload, download = pathlib.Path(directory) / "upload", files / "large"
    upload.write_bytes(os.urandom(LARGE))
    download.write_bytes(os.urandom(LARGE))
    (files / "small").write_bytes(b"small\n")
    with (lab.Origin(tools, certificates=certificates) as origin,
          lab.Nghttpd(files, "--echo-upload") as clear,
          lab.Nghttpd(files, "--echo-upload", certificates=certificates) as sealed):
        routes = {
            "HTTP/1.1": (origin.urls["1.1"], ""),
            "HTTP/2": (origin.urls["2"], 'http = "2"'),
            "HTTP/2 over TLS": (origin.urls["tls"], ""),
            "nghttpd": (clear.url, 'http = "2"'),
            "nghttpd over TLS": (sealed.url, ""),
        }
        with lab.Front(directory, certificates, routes) as sidekey:
            for caller in lab.callers(certificates):
                for route in ["HTTP/1.1", "HTTP/2 over TLS"]:
                    through_origin(sidekey, caller, route, upload)
                for route in ["nghttpd", "nghttpd over TLS"]:
                    through_nghttpd(sidekey, caller, route, upload, download)
            figure(f"VmRSS, VmHWM {sidekey.memory()} kB, after {LARGE // MIB} MiB up 18 times and down 12 times")
            for route in ["HTTP/1.1", "HTTP/2", "HTTP/2 over TLS"]:
                unseen(sidekey, origin, certificates, route, upload, nghttp)
                trailers(sidekey, route, directory, nghttp)


def judge(name, conditions, found):
    wrong = [what for what, holds in conditions.items() if not holds]
    check(name, not wrong, f"not so: {', '.join(wrong)}; {found}")


def version_of(name):
    return "1.1" if name.startswith("HTTP/1.1") else "2"


def through_origin(sidekey, caller, route, upload):
    """All methods, to the upstream that tells what it received."""
    base, label = sidekey.base(route, caller.tls), f"{caller.name} to {route}"
    spoken = version_of(caller.name)
    code, out, err = lab.curl(caller, "-w", r"\n%{http_code} %{http_version}", f"{base}/echo?x=%20y")
    body, _, said = out.decode().rpartition("\n")
    seen = json.loads(body) if not code else {"headers": []}
    headers = dict(seen["headers"])
    judge(f"{label}: GET", {
        "curl ends well": code == 0,
        "200 in the caller's version": said == f"200 {spoken}",
        "the upstream's version": seen.get("version") == version_of(route),
        "the target": seen.get("path") == "/echo?x=%20y",
        "the credential": headers.get("authorization") == f"Bearer {lab.TOKEN}",
        "Via": headers.get("via") == ("1.1 sidekey" if spoken == "1.1" else "2.0 sidekey"),
    }, f"{code} {err} {out[:500]}")
    code, out, err = lab.curl(caller, "-I", f"{base}/echo")
    judge(f"{label}: HEAD", {"curl ends well": code == 0, "200": b" 200" in out,
                             "a length": re.search(rb"(?mi)^content-length: [1-9]", out)}, f"{code} {err} {out}")
    for name, words in {
        "POST": ["-d", "a=b"],
        f"an upload of {LARGE // MIB} MiB": ["-T", upload],
        f"an upload of {LARGE // MIB} MiB, its length unknown": ["-T", "-"],
    }.items():
        with upload.open("rb") as stdin:
            code, out, err = lab.curl(caller, *words, f"{base}/echo", stdin=stdin)
        data = b"a=b" if name == "POST" else upload.read_bytes()
        seen = json.loads(out) if not code else {}
        judge(f"{label}: {name}", {"curl ends well": code == 0, "every byte": seen.get("sha256") == lab.sha256(data)},
              f"{code} {err} {out[:500]}")
    code, out, err = lab.curl(caller, f"{base}/bytes/{LARGE}")
    judge(f"{label}: a download of {LARGE // MIB} MiB",
          {"curl ends well": code == 0, "every byte": out == random.Random(str(LARGE)).randbytes(LARGE)},
          f"{code} {err} {len(out)} bytes")


def through_nghttpd(sidekey, caller, route, upload, download):
    """All methods, to nghttpd, which sends back what it is sent."""
    base, label = sidekey.base(route, caller.tls), f"{caller.name} to {route}"
    whole = download.read_bytes()
    for name, words, expected in [
        ("GET", ["small"], b"small\n"),
        (f"a download of {LARGE // MIB} MiB", ["large"], whole),
        ("POST", ["echo", "-d", "a=b"], b"a=b"),
        (f"an upload of {LARGE // MIB} MiB, and back", ["echo", "-T", upload], upload.read_bytes()),
    ]:
        path, *words = words
        code, out, err = lab.curl(caller, *words, f"{base}/{path}")
        judge(f"{label}: {name}", {"curl ends well": code == 0, "every byte": out == expected},
              f"{code} {err} {len(out)} bytes")
    code, out, err = lab.curl(caller, "-I", f"{base}/large")
    judge(f"{label}: HEAD", {"curl ends well": code == 0, "200": b" 200" in out,
                             "the length": f"content-length: {LARGE}".encode() in out.lower()}, f"{code} {err} {out}")


def unseen(sidekey, origin, certificates, route, upload, nghttp):
    """Uploads that ask first, and are refused: nothing of them goes anywhere."""
    marks = iter(range(1000))
    large = upload.with_name("refused")
    with large.open("wb") as sparse:
        sparse.truncate(REFUSED)

    def refused(label, status, send):
        mark = f"{route}-{next(marks)}".replace("/", "-").replace(" ", "-")
        got, sent, found = send(f"/refuse/{status}?{mark}")
        came = origin.ask({"refused": mark})
        figure(f"{label}: answered {got}; {sent} bytes left the caller, {came} reached the upstream")
        judge(f"{label}, refused with {status}: no byte moves",
              {"the status": got == status, "0 sent": sent == 0, "0 arrived": came == 0}, found)

    for caller in lab.callers(certificates):
        if version_of(caller.name) == "2":
            continue
        for words in ["-T", large], ["-T", "-"]:
            def with_curl(path):
                base = sidekey.base(route, caller.tls)
                said = ["-w", r"\n%{http_code} %{size_upload}", "-H", "Expect: 100-continue"]
                with large.open("rb") as stdin:
                    code, out, err = lab.curl(caller, *said, "--expect100-timeout", 60, *words, base + path,
                                              stdin=stdin)
                status, size = out.decode().rpartition("\n")[2].split()
                return int(status), int(size), f"{code} {err} {out}"
            kind = "of unknown length " if words[1] == "-" else ""
            # curl asks again, without asking first, when it is answered 417.
            for status in [401, 413]:
                refused(f"curl, {caller.name} to {route}: an upload {kind}that asks first", status, with_curl)
    for tls in [False, True]:
        def raw(path):
            return asks_first(sidekey.address(route, tls), path, certificates if tls else None)

        def with_nghttp(path):
            return of_nghttp([nghttp, "-v", "--expect-continue", "-d", large, sidekey.base(route, tls) + path])
        over = " over TLS" if tls else ""
        refused(f"HTTP/1.1{over} to {route}: an upload that asks first", 417, raw)
        for status in [401, 413, 417]:
            refused(f"nghttp, HTTP/2{over} to {route}: an upload that asks first", status, with_nghttp)
    # Wanted, it goes whole; refused without having been asked about, the answer reaches the caller all the same.
    base = sidekey.base(route)
    code, out, err = lab.curl(lab.callers(certificates)[0], "-v", "-H", "Expect: 100-continue", "--expect100-timeout",
                              60, "-T", large, f"{base}/echo")
    judge(f"an upload to {route} that asks first, and is wanted", {
        "curl ends well": code == 0, "100 Continue": "100 Continue" in err,
        "every byte": code == 0 and json.loads(out)["bytes"] == REFUSED}, f"{code} {err[-800:]}")
    caller = lab.callers(certificates)[0]
    for words in ["-T", large], ["-T", "-"]:
        wrong = []
        for turn in range(ROUNDS):
            mark = f"unasked-{route.replace(' ', '-')}-{words[1] == '-'}-{turn}"
            with large.open("rb") as stdin:
                code, out, err = lab.curl(caller, "-H", "Expect:", "-w", "%{http_code}", *words,
                                          f"{base}/refuse/413?{mark}", stdin=stdin)
            if code or not out.endswith(b"413"):
                wrong.append((code, out, err))
        kind = "of unknown length " if words[1] == "-" else ""
        check(f"{caller.name} to {route}: {ROUNDS} uploads {kind}that do not ask, refused at once, are answered",
              not wrong, wrong)
    status, sent, found = of_nghttp([nghttp, "-v", "-d", large, f"{base}/refuse/413?plain-{route.replace(' ', '-')}"])
    came = origin.ask({"refused": f"plain-{route.replace(' ', '-')}"})
    figure(f"HTTP/2 to {route}, not asked first: answered {status}; {sent} of {REFUSED} bytes left the caller, "
           f"{came} reached the upstream")
    judge(f"an upload to {route} that does not ask, refused at once, is answered",
          {"the status": status == 413, "not sent whole": sent < REFUSED}, found)


def asks_first(address, path, certificates):
    """A caller of HTTP/1.1 that would wait for ever: the first status, and what it sent of its body."""
    host, port = address.split(":")
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(socket.create_connection((host, int(port)), 30))
        if certificates:
            context = ssl.create_default_context(cafile=certificates.root)
            stream = stack.enter_context(context.wrap_socket(stream, server_hostname="localhost"))
        stream.sendall(f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {REFUSED}\r\n"
                       "Expect: 100-continue\r\n\r\n".encode())
        first = stream.makefile("rb").readline().decode()
        return int(first.split()[1]), 0, first


def of_nghttp(words):
    """What nghttp was answered, and how much of its body it sent."""
    ran = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                         timeout=120)
    finals = [int(status) for status in re.findall(r":status: (\d+)", ran.stdout) if int(status) >= 200]
    sent = sum(map(int, re.findall(r"send DATA frame <length=(\d+)", ran.stdout)))
    return (finals or [0])[-1], sent, f"{ran.returncode} {ran.stdout[-1500:]}"


def trailers(sidekey, route, directory, nghttp):
    """A chunked upload with trailers, which curl cannot send; and one of HTTP/2."""
    host, port = sidekey.address(route).split(":")
    with socket.create_connection((host, int(port)), 30) as stream:
        stream.sendall(f"POST /echo HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n"
                       "Trailer: X-Sum, X-Other\r\nConnection: close\r\n\r\n"
                       "5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 42\r\n"
                       "Authorization: Bearer mine\r\nX-Other: a\r\nX-Other: b\r\n\r\n".encode())
        answer = stream.makefile("rb").read().decode()
    body = re.search(r"\{.*\}", answer, re.S)
    seen = json.loads(body[0]) if body else {"trailers": answer}
    judge(f"HTTP/1.1 to {route}: a chunked upload with trailers", {
        "the body": seen.get("bytes") == 11,
        "the trailers, but for what authenticates": sorted(seen["trailers"])
        == [["x-other", "a"], ["x-other", "b"], ["x-sum", "42"]]}, answer)
    small = pathlib.Path(directory) / "small"
    small.write_text("hello world")
    words = [nghttp, "-d", small, "--trailer", "x-sum: 42", f"{sidekey.base(route)}/echo"]
    ran = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True, timeout=60)
    with contextlib.suppress(ValueError):
        seen = json.loads(ran.stdout)
    judge(f"HTTP/2 to {route}: an upload with trailers", {
        "the body": seen.get("bytes") == 11, "the trailers": ["x-sum", "42"] in seen["trailers"]}, ran.stdout)


SUITES = {"curl-versions": suite_curl_versions}
