"""Users of the machine, each with processes of their own: who gets through a Unix socket."""

import contextlib
import grp
import http.server
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import threading

from support import SIDEKEY, WITHOUT_ADMIN, Sidekey, check, figure

APP, OTHER, MEMBER, SECOND = 61_001, 61_002, 61_003, 61_004
TEAM = 61_100
TOKEN = "the-upstreams-own"
VERSIONS = [("HTTP/1.1", "--http1.1"), ("HTTP/2", "--http2-prior-knowledge")]


def suite_users(directory, tools):
    """Another user's process cannot use a Unix-socket caller's route: real processes of other users."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() or not setpriv or subprocess.run(person(APP) + ["true"], capture_output=True).returncode:
        figure("left out: to be other users needs root, and setpriv")
        return
    with Upstream() as upstream, public_directory() as public:
        by_user(directory, public, upstream)
        by_group(directory, public, upstream)
        by_the_file(directory, public, upstream)
        by_name(directory, public, upstream)
        not_root(public, upstream)


class Upstream:
    """Answers each request, and keeps what it was shown."""

    def __enter__(self):
        seen = self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                seen.append((self.path, self.headers.get("Authorization")))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def take(self):
        seen, self.seen[:] = list(self.seen), []
        return seen

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"


@contextlib.contextmanager
def public_directory():
    """A directory that every user may enter; those of the suites are for their own alone."""
    with tempfile.TemporaryDirectory(prefix="sidekey-users-") as name:
        os.chmod(name, 0o755)
        yield pathlib.Path(name)


def person(uid, gid=None, groups=()):
    """What makes a command a process of that user."""
    others = ["--groups", ",".join(map(str, groups))] if groups else ["--clear-groups"]
    return ["setpriv", "--reuid", str(uid), "--regid", str(gid or uid), *others]


def configuration(upstream, listen, callers=""):
    # Of TCP, whatever a test does with it, there is one as well.
    return f"""
[server]
listen = ["127.0.0.1:0", {listen}]
{callers}
[route.a]
path = "/"
upstream = "{upstream.url}"
credential = {{ type = "bearer", token = {{ value = "{TOKEN}" }} }}
"""


def ask(who, socket, version="--http1.1", path="/"):
    """Status and `Sidekey-Error` of a request over the socket; "refused" where nobody can connect."""
    words = ["curl", "-q", "-sS", version, "--unix-socket", socket, "-o", "/dev/null",
             "-w", "%{http_code} %header{sidekey-error}", f"http://localhost{path}"]
    ran = subprocess.run([*who, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return "refused" if ran.returncode == 7 else ran.stdout.strip() or ran.stderr


def checked(name, who, socket, want, upstream):
    """The answer to requests of that process, in each version of HTTP; nothing passes unless it is told to."""
    for version, word in VERSIONS:
        upstream.take()
        got = ask(who, socket, word, "/v1")
        seen = upstream.take()
        passed = [("/v1", f"Bearer {TOKEN}")] if want == "200" else []
        check(f"{version}: {name}: {want}", (got, seen) == (want, passed), (got, seen))


def by_user(directory, public, upstream):
    socket = public / "user.sock"
    listen = f'{{ bind = "unix:{socket}", mode = "0666" }}'
    text = configuration(upstream, listen, f"[caller.app]\nuid = [{APP}, {SECOND}]")
    with Sidekey(directory, text) as sidekey:
        checked("the user that the caller is", person(APP), socket, "200", upstream)
        checked("the caller's second user", person(SECOND), socket, "200", upstream)
        checked("another user", person(OTHER), socket, "401 caller_unknown", upstream)
        checked("another user with the group of the caller's", person(OTHER, APP), socket, "401 caller_unknown",
                upstream)
        checked("root, that is no caller", [], socket, "401 caller_unknown", upstream)
        over_tcp = subprocess.run([*person(APP), "curl", "-q", "-sS", "-o", "/dev/null", "-w", "%{http_code}",
                                   sidekey.url], stdout=subprocess.PIPE, text=True).stdout
        check("the caller's user over TCP: 401", over_tcp == "401" and not upstream.take(), over_tcp)
        at_once(socket, upstream)


def at_once(socket, upstream):
    """Who is asked for on one connection is not asked for on another."""
    upstream.take()
    asked = []

    def run(uid, want):
        for _ in range(20):
            asked.append((uid, want, ask(person(uid), socket, VERSIONS[len(asked) % 2][1], f"/{uid}")))

    both = [threading.Thread(target=run, args=who) for who in [(APP, "200"), (OTHER, "401 caller_unknown")]]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    wrong = [one for one in asked if one[1] != one[2]]
    check(f"{len(asked)} requests of both users at once get what each may", not wrong, wrong[:5])
    paths = {path for path, _ in upstream.take()}
    check("nothing of the other user's reached the upstream", paths == {f"/{APP}"}, paths)


def by_group(directory, public, upstream):
    socket = public / "group.sock"
    listen = f'{{ bind = "unix:{socket}", mode = "0666" }}'
    with Sidekey(directory, configuration(upstream, listen, f"[caller.team]\ngid = {TEAM}")):
        checked("a process of the caller's group", person(MEMBER, TEAM), socket, "200", upstream)
        checked("a process of another group", person(OTHER), socket, "401 caller_unknown", upstream)
        checked("a process that has the group beside its own", person(OTHER, groups=[TEAM]), socket,
                "401 caller_unknown", upstream)
    with Sidekey(directory, configuration(upstream, listen, f"[caller.one]\nuid = {MEMBER}\ngid = {TEAM}")):
        checked("the caller's user and group", person(MEMBER, TEAM), socket, "200", upstream)
        checked("its user alone", person(MEMBER), socket, "401 caller_unknown", upstream)
        checked("its group alone", person(OTHER, TEAM), socket, "401 caller_unknown", upstream)


def found(socket):
    """Mode, owner and group of a file."""
    stat = os.lstat(socket)
    return oct(stat.st_mode & 0o7777), stat.st_uid, stat.st_gid


def by_the_file(directory, public, upstream):
    own = os.getgid()
    sockets = {name: public / f"{name}.sock" for name in ["own", "app", "team"]}
    listen = ", ".join([
        f'"unix:{sockets["own"]}"',
        f'{{ bind = "unix:{sockets["app"]}", owner = {APP} }}',
        f'{{ bind = "unix:{sockets["team"]}", owner = {APP}, group = {TEAM} }}',
    ])
    with Sidekey(directory, configuration(upstream, listen)):
        files = {name: found(socket) for name, socket in sockets.items()}
        want = {"own": ("0o600", 0, own), "app": ("0o600", APP, own), "team": ("0o660", APP, TEAM)}
        check("each socket's file has the mode, owner and group that it was given", files == want, files)
        checked("a socket without a word: another user", person(OTHER), sockets["own"], "refused", upstream)
        checked("a socket without a word: its own user", [], sockets["own"], "200", upstream)
        checked("an owner's socket: the owner", person(APP), sockets["app"], "200", upstream)
        checked("an owner's socket: another user", person(OTHER), sockets["app"], "refused", upstream)
        checked("a group's socket: the owner", person(APP), sockets["team"], "200", upstream)
        checked("a group's socket: a member", person(MEMBER, TEAM), sockets["team"], "200", upstream)
        checked("a group's socket: a member by a supplementary group", person(MEMBER, groups=[TEAM]),
                sockets["team"], "200", upstream)
        checked("a group's socket: another user", person(OTHER), sockets["team"], "refused", upstream)
    left = [str(path) for path in public.iterdir()]
    check("no file is left of sockets that are closed", not left, left)


def by_name(directory, public, upstream):
    user, group = pwd.getpwnam("nobody"), grp.getgrgid(pwd.getpwnam("nobody").pw_gid)
    socket = public / "named.sock"
    listen = f'{{ bind = "unix:{socket}", owner = "{user.pw_name}", group = "{group.gr_name}", mode = "0600" }}'
    with Sidekey(directory, configuration(upstream, listen)):
        want = ("0o600", user.pw_uid, group.gr_gid)
        check("owner and group may be names", found(socket) == want, found(socket))


def not_root(public, upstream):
    """A sidekey of an ordinary user."""
    binary = shutil.copy(SIDEKEY, public / "sidekey")
    directory = public / "ordinary"
    directory.mkdir()
    os.chown(directory, APP, APP)
    file, socket = directory / "sidekey.toml", directory / "s.sock"
    os.chmod(directory, 0o755)

    def run(access, groups=()):
        file.write_text(configuration(upstream, f'{{ bind = "unix:{socket}", {access} }}'))
        words = [*person(APP, groups=groups), binary, "run", "-c", file]
        return subprocess.Popen([str(word) for word in words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, env=WITHOUT_ADMIN)

    for access, words in [(f"owner = {OTHER}", f"to user {OTHER}: "), (f"group = {TEAM}", f"to group {TEAM}: ")]:
        with run(access) as child:
            try:
                _, said = child.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                child.kill()
                said = "it runs"
        left = [path.name for path in directory.iterdir() if path != file]
        check(f"who is not root and writes {access} is told why not, and no socket is left",
              child.returncode == 1 and words in said and "only root" in said and not left,
              (child.returncode, said, left))
    with run(f"group = {TEAM}", groups=[TEAM]) as child:
        try:
            for line in child.stdout:
                if line.startswith("route "):
                    break
            want = ("0o660", APP, TEAM)
            check("who is in a group gives it the socket", os.path.exists(socket) and found(socket) == want, child.poll())
            checked("a member of it", person(MEMBER, TEAM), socket, "200", upstream)
            checked("another user", person(OTHER), socket, "refused", upstream)
        finally:
            child.terminate()
            child.communicate()


SUITES = {"users": suite_users}
