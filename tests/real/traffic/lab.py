"""What these suites have in common: certificates, upstreams, callers of every version, and sidekey between them."""

import collections
import contextlib
import hashlib
import json
import pathlib
import socket
import subprocess
import time

from support import ROOT, Process, Sidekey, Tools, adopt, figure, free_port

PEERS = ROOT / "tests" / "real" / "traffic" / "peers"
# The one that the stand-in of Neon takes.
TOKEN = "neon-key"

# How a caller speaks: words for curl, and which of a route's listeners it takes.
Caller = collections.namedtuple("Caller", "name words tls")


def callers(certificates):
    """curl in each version of HTTP that it speaks."""
    root = ["--cacert", certificates.root]
    return [Caller("HTTP/1.1", ["--http1.1"], False), Caller("HTTP/2", ["--http2-prior-knowledge"], False),
            Caller("HTTP/2 over TLS", ["--http2", *root], True)]


def below(directory, name):
    """A directory of its own for one more sidekey."""
    path = pathlib.Path(directory) / name
    path.mkdir()
    return path


def until(condition, seconds=20, pause=0.01):
    """Waits for a condition; what it said last."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(pause)
    return found


class Certificates:
    """A private CA, and a certificate for 127.0.0.1, localhost and upstream.example."""

    def __init__(self, directory):
        openssl = Tools.program("openssl", "openssl")
        directory = pathlib.Path(directory)
        self.root, self.cert, self.key = (directory / name for name in ["root.pem", "cert.pem", "key.pem"])
        root_key, request, extensions = (directory / name for name in ["root.key", "request.pem", "extensions"])
        new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj"]
        extensions.write_text("subjectAltName=DNS:localhost,DNS:upstream.example,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        for words in [
            [*new, "/CN=a root of these tests", "-x509", "-days", 2, "-keyout", root_key, "-out", self.root],
            [*new, "/CN=localhost", "-keyout", self.key, "-out", request],
            ["x509", "-req", "-in", request, "-CA", self.root, "-CAkey", root_key, "-CAcreateserial", "-days", 2,
             "-extfile", extensions, "-out", self.cert],
        ]:
            subprocess.run([openssl, *map(str, words)], check=True, capture_output=True)
        self.key.chmod(0o600)


class Peer(Process):
    """A script of peers/, with which one talks in lines of JSON."""

    def __init__(self, tools, script, *arguments):
        super().__init__(tools.python, PEERS / script, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        first = self.child.stdout.readline()
        if not first:
            raise RuntimeError(f"{script} does not start")
        self.urls = json.loads(first)

    def tell(self, line):
        self.child.stdin.write(json.dumps(line) + "\n")
        self.child.stdin.flush()

    def ask(self, line):
        self.tell(line)
        return json.loads(self.child.stdout.readline())

    def check_all(self, line):
        """Lets it make its checks, to the end."""
        self.tell(line)
        said = []
        for line in self.child.stdout:
            said.append(line)
            if line.startswith(("ok ", "FAILED ")):
                adopt(line)
            elif line.strip():
                figure(line.rstrip())
        self.child.wait()
        return self.child.returncode == 0, "".join(said[-20:])


class Origin(Peer):
    """peers/origin.py."""

    def __init__(self, tools, name="origin", *options, certificates=None):
        tls = ["--tls", certificates.cert, certificates.key] if certificates else []
        super().__init__(tools, "origin.py", name, *options, *tls)


class Nghttpd(Process):
    """nghttpd: HTTP/2 from the makers of the library that curl uses."""

    def __init__(self, directory, *options, certificates=None, port=None):
        program = Tools.program("nghttpd", "nghttp2-server")
        self.port = port or free_port()
        scheme, tls = ("https", [certificates.key, certificates.cert]) if certificates else ("http", ["--no-tls"])
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        words = [program, "-d", directory, "-a", "127.0.0.1", *options]
        words += [*tls, self.port] if not certificates else [self.port, *tls]
        super().__init__(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if not until(lambda: accepts(self.port)):
            raise RuntimeError("nghttpd does not start")


def accepts(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class Front(Sidekey):
    """A running sidekey with a route for each upstream, each with a listener in clear text and one with TLS."""

    def __init__(self, directory, certificates, routes, server="", **options):
        self.names = list(routes)
        tls = f'tls = {{ cert = "{certificates.cert}", key = "{certificates.key}" }}'
        config = f'[server]\n{server}\n[tls]\nca = "{certificates.root}"\n'
        # Their listeners stand in the order of their names.
        for number, (url, extra) in enumerate(routes.values()):
            config += f"""
[route.number-{number:02}]
listen = ["127.0.0.1:0", {{ bind = "127.0.0.1:0", {tls} }}]
upstream = "{url}"
credential = {{ type = "bearer", token = {{ value = "{TOKEN}" }} }}
{extra}
"""
        super().__init__(directory, config, **options)

    def address(self, route, tls=False):
        """Where callers connect."""
        return self.addresses[2 * self.names.index(route) + tls]

    def base(self, route, tls=False):
        return ("https://" if tls else "http://") + self.address(route, tls)


def curl(caller, *words, **options):
    """Runs curl; its exit status, and what `-w` and the rest printed."""
    words = ["curl", "-sS", *caller.words, *words]
    ran = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    return ran.returncode, ran.stdout, ran.stderr.decode(errors="replace").strip()


def sha256(data):
    return hashlib.sha256(data).hexdigest()
