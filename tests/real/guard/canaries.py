"""A marked secret in every place that takes one, everything that can go wrong, and a search of all that came out."""

import contextlib
import os
import pathlib
import re
import subprocess
import threading
import time

from logins.person import Person
from support import SIDEKEY, Process, Sidekey, Tools, check, figure, free_port, say
from . import canary_config as config
from .canary_callers import Ask, ask_admin, over_h2
from .canary_marks import Canaries, word
from .canary_peers import ECHOES, TOKEN_FAULTS, UPSTREAM_FAULTS, Authorization, Proxy, Redis, Relay, Upstream

# What goes wrong while somebody logs in, refreshes and logs out.
LOGIN_FAULTS = ["description", "html", "token-of-words", "reset", "garbage"]


class Hunt:
    """The canaries, the peers, and all that was found where it does not belong."""

    def __init__(self, directory, tools):
        self.directory, self.canaries, self.found = directory, Canaries(), []
        self.upstream = Upstream("upstream", self.canaries)
        self.authorization = Authorization("authorization", self.canaries)
        self.proxy = Proxy("proxy", self.canaries, self.upstream, self.authorization)
        self.relay, self.tools = Relay("redis", self.canaries, None), tools
        self.searched = {}

    def ports(self):
        return {"upstream": self.upstream.port, "authorization": self.authorization.port, "proxy": self.proxy.port,
                "redis": self.relay.port, "admin": free_port()}

    def keep(self, place, data):
        """Something that came out; it is searched at the end, when every canary is known."""
        data = data if isinstance(data, bytes) else data.encode()
        self.searched.setdefault(place, []).append(data)

    def search(self):
        for place, pieces in self.searched.items():
            for canary, around in self.canaries.find(place, b"\n".join(pieces)).items():
                self.found.append((place, canary, around))
        for peer in [self.upstream, self.authorization, self.proxy, self.relay]:
            for whose, data in peer.received.items():
                found = self.canaries.find(f"what the {peer.name} received", data, at_home=(peer.name, whose))
                for canary, around in found.items():
                    self.found.append((f"the {peer.name}, for {whose}", canary, around))

    def command(self, document, file, *words, stdin=None, seconds=60):
        """A command of sidekey at its most talkative; what it prints is searched."""
        full = [SIDEKEY, *words[:1], *(["-c", str(file)] if file else []), *words[1:]]
        full[2:2] = ["--log-level", "trace"]
        try:
            ran = subprocess.run(full, env=config.environment(document, document.directory), capture_output=True,
                                 input=stdin, timeout=seconds, check=False)
            status, out, errors = ran.returncode, ran.stdout, ran.stderr
        except subprocess.TimeoutExpired as error:
            status, out, errors = None, error.stdout or b"", error.stderr or b""
        self.keep("what commands print", out + errors)
        return status, out + errors


class Watch(threading.Thread):
    """Looks at a process's arguments, and at those and the environments of its children, again and again."""

    def __init__(self, hunt, pid):
        super().__init__(daemon=True)
        self.hunt, self.pid, self.ending, self.seen = hunt, pid, threading.Event(), {}
        self.start()

    def run(self):
        while not self.ending.wait(0.02):
            children = []
            for task in pathlib.Path(f"/proc/{self.pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    children += task.read_text().split()
            pids = [str(self.pid), *children]
            try:
                own = pathlib.Path(f"/proc/{self.pid}/cmdline").read_bytes()
            except OSError:
                return
            for child in children:
                # Between fork and exec it is sidekey itself.
                with contextlib.suppress(OSError):
                    if pathlib.Path(f"/proc/{child}/cmdline").read_bytes() in (b"", own):
                        continue
                for file in ["environ", "cmdline"]:
                    self.look(f"/proc/CHILD/{file}", f"/proc/{child}/{file}")
            self.look("/proc/PID/cmdline", f"/proc/{self.pid}/cmdline")
            if children and len(self.seen.get("ps", ())) < 50:
                shown = subprocess.run(["ps", "ww", "-o", "args", "-p", ",".join(pids)], stdout=subprocess.PIPE,
                                       check=False).stdout
                self.seen.setdefault("ps", set()).add(shown)

    def look(self, place, path):
        with contextlib.suppress(OSError):
            self.seen.setdefault(place, set()).add(pathlib.Path(path).read_bytes())

    def end(self):
        self.ending.set()
        self.join()
        for place, texts in self.seen.items():
            # The files' names are in the arguments; the secrets are not.
            self.hunt.keep(place, b"\n".join(texts))
        return self.seen


def whole(hunt, source, store):
    """A configuration with everything in it, its secrets from one kind of source."""
    directory = hunt.directory / f"{source}-{store}"
    directory.mkdir()
    ports = hunt.ports()
    document = config.Document(directory, hunt.canaries, source, ports)
    tokens = {}
    for place in config.places():
        if place in config.NEVER or (place.startswith("store.") and not stored(place, store)):
            continue
        tokens[place] = document.put(place)
    if store == "file":
        document.store += ['type = "file"', config_path(directory)]
    # The token endpoint's faults, with each way to show who asks.
    for fault in TOKEN_FAULTS if store == "redis" else []:
        document.put("credential.*:aura.client_secret", fault=fault)
        for method in ["basic", "post"]:
            document.put("credential.*:client_credentials.client_secret", fault=fault, method=method)
        document.put("credential.*:client_credentials.private_key", fault=fault)
    good = hunt.canaries.new("token of a command", [("upstream", "command-good")]).value
    document.command("command-good", f'{{"access_token": "{good}", "expires_in": 2}}')
    for name, text, failing in [
        ("command-garbage", "{0}\n{0}", False), ("command-broken", '{{"access_token": "{0}', False),
        ("command-words", '{{"access_token": "{0} {0}"}}', False), ("command-fails", "{0}", True),
        ("command-nested", '{{"access_token": ["{0}"], "{0}": 1}}', False),
        ("command-expiry", '{{"access_token": "{0}", "expires_at": "{0}"}}', False),
        ("command-type", '{{"access_token": "{0}", "token_type": "{0}"}}', False),
    ]:
        document.command(name, text.format(hunt.canaries.new("token of a command").value), failing)
    bearer = {"type": '"bearer"'}
    for name, upstream, extra in [
        ("far", "http://far.example/up/far", "allow_cleartext = true"),
        ("proxy-refuses", "http://refused.example/up/x", "allow_cleartext = true"),
        ("proxy-garbage", "http://garbage.example/up/x", "allow_cleartext = true"),
        ("no-tls", f"https://127.0.0.1:{hunt.upstream.port}/up/no-tls", ""),
        ("refused", "http://127.0.0.1:9/up/refused", ""),
        ("h2", f"http://127.0.0.1:{hunt.h2}/up/h2", 'http = "2"'),
        ("no-h2", f"http://127.0.0.1:{hunt.upstream.port}/up/no-h2", 'http = "2"'),
    ]:
        token = hunt.canaries.new("bearer token", [("upstream", name)], f"[route.{name}]").value
        pairs = [*bearer.items(), ("token", document.reference(name, token))]
        document.route(name, config.table(pairs), extra, upstream)
    return document, tokens, ports


def stored(place, store):
    """The list of keys stands in the one store, the single key in the other."""
    return place in {"redis": ["store.password", "store.encryption_key[]"], "file": ["store.encryption_key"]}[store]


def config_path(directory):
    return f"path = {config.quoted(str(directory / 'store'))}"


def run_whole(hunt, source, store):
    """One instance with everything; what it wrote and answered is kept. Gives the document."""
    document, tokens, ports = whole(hunt, source, store)
    directory = document.directory
    admin, admin_token = f"http://127.0.0.1:{ports['admin']}", tokens["server.admin_token"]
    environment = config.environment(document, directory)
    text = document.text(admin=f'"127.0.0.1:{ports["admin"]}"')
    what = f"canaries, {source}, {store}"
    faults = UPSTREAM_FAULTS if store == "redis" else UPSTREAM_FAULTS[:2]
    with contextlib.ExitStack() as stack:
        redis = None
        if store == "redis":
            redis = stack.enter_context(Redis(hunt.tools.redis, directory / "redis", tokens["store.password"]))
            redis.say(["PING"])
            hunt.relay.onward = redis.port
        sidekey = stack.enter_context(Sidekey(directory, text, "--log-level", "trace", env=environment))
        watch = Watch(hunt, sidekey.child.pid)
        ask = Ask(hunt, sidekey.addresses[0], tokens)
        logins = sorted({name for name in document.routes if "named-" in name and name.endswith("-basic")
                         and ("authorization-code" in name or "neon-oauth" in name) and "egress" not in name})
        for name in logins:
            person = Person()
            page = person.submit(person.open(f"{admin}/connect/{name}"), token=admin_token)
            check(f"{what}: a login to {name}", page.status == 200 and "worked" in page.text, page)
            for cookie in person.cookies:
                hunt.canaries.add(cookie, "cookie", [("browser", "")])
            hunt.keep("answers of the admin listener", page.body)
        threads = []
        for route in document.routes:
            words = faults if "-ok-" in route or route in ("far", "by-proxy", "command-good", "h2") else ["ok"]
            threads.append(threading.Thread(target=lambda route=route, words=words: [
                ask.ask(route, word_) for word_ in [*words, *(ECHOES if "-ok-" in route else [])]]))
        for at in range(0, len(threads), 8):
            for thread in threads[at:at + 8]:
                thread.start()
            for thread in threads[at:at + 8]:
                thread.join()
        count = ask.malformed()
        over_h2(hunt, ask, document)
        figure(f"{what}: {sum(ask.statuses.values())} requests {ask.statuses}, {count} malformed ones")
        check(f"{what}: requests end well and in each of the ways",
              {200, 401, 502, 503, 504} <= ask.statuses.keys(), ask.statuses)
        ask_admin(hunt, ports["admin"], admin_token)
        break_store(hunt, directory, redis, ask, logins)
        refresh_and_log_out(hunt, document, sidekey, ask, logins)
        if source == "file":
            change_files(hunt, document, ask)
        commands(hunt, document, sidekey.file, logins, ask)
        status, _ = hunt.command(document, sidekey.file, "stop")
        check(f"{what}: the command stops it", status == 0, status)
        sidekey.child.wait(40)
        seen = watch.end()
        check(f"{what}: children were looked at",
              {"/proc/CHILD/environ", "/proc/CHILD/cmdline", "ps"} <= seen.keys(), seen.keys())
    hunt.keep("the log", sidekey.log_file.read_bytes())
    for file in [*(directory / "store").rglob("*"), *(directory / "state").rglob("*"), *(directory / "run").rglob("*")]:
        if file.is_file():
            hunt.keep("the store and runtime directories", file.name.encode() + b"\n" + file.read_bytes())
    for file in document.dump.iterdir():
        own = file.read_bytes()
        hunt.keep("what commands that print secrets inherit", own)
    return document, ask


def break_store(hunt, directory, redis, ask, logins):
    """A password that is wrong by now, or a directory that is none, while grants are refreshed."""
    path = directory / "store"
    if redis:
        redis.say(["CONFIG", "SET", "requirepass", "another"], ["CLIENT", "KILL", "TYPE", "normal"])
    else:
        path.rename(directory / "kept")
        path.write_text("no directory")
    time.sleep(3)
    for name in logins:
        ask.ask(name, "ok")
    if redis:
        redis.password, password = "another", redis.password
        redis.say(["CONFIG", "SET", "requirepass", password])
        redis.password = password
    else:
        path.unlink()
        (directory / "kept").rename(path)
    time.sleep(1)


def refresh_and_log_out(hunt, document, sidekey, ask, logins):
    """Grants are refreshed, refused in each of the ways, and taken back."""
    for fault in LOGIN_FAULTS:
        for name in logins:
            hunt.authorization.fault[name] = fault
        time.sleep(1.5)
        for name in logins:
            ask.ask(name, "ok")
    for name in logins:
        hunt.command(document, sidekey.file, "logout", name)
        ask.ask(name, "ok")
        hunt.authorization.fault.pop(name)


def change_files(hunt, document, ask):
    """A secret's file that vanishes, is cut, or holds what is none; the requests after it."""
    new = lambda: hunt.canaries.new("secret that changed").value
    names = [name for name in document.routes if re.search(r"-(basic|bearer|header)-(password|token|value)-ok", name)]

    def directory(path):
        path.unlink()
        path.mkdir()

    def undo(path):
        if path.is_dir():
            path.rmdir()

    files = document.files
    for change in [lambda path: path.write_text(f"{new()}\n{new()}"), lambda path: path.write_text(""),
                   lambda path: path.write_bytes(b"\xff" + new().encode()), lambda path: path.write_text(new() * 3000),
                   lambda path: path.unlink(), directory]:
        kept = {path: path.read_text() for path in files}
        for path in files:
            change(path)
        time.sleep(1.3)
        for name in [*names, "far", "by-proxy"]:
            ask.ask(name, "ok")
        hunt.command(document, document.directory / "sidekey.toml", "check")
        for path, text in kept.items():
            undo(path)
            path.touch(0o600)
            path.write_text(text)
    time.sleep(1.3)


def commands(hunt, document, file, logins, ask):
    """Everything else that sidekey is asked on the command line."""
    new = lambda kind="argument": hunt.canaries.new(kind).value
    login = logins[0]
    port = re.search(r":(\d+)/callback", file.read_text())[1]
    pasted = f"http://127.0.0.1:{port}/callback?code={new()}&state={new()}\n".encode()
    for words, stdin in [
        (["status"], None), (["status", "--json"], None), (["wait", "--for", "live", "--timeout", "2s"], None),
        (["wait", "--timeout", "1s"], None), (["check"], None), (["check", "--no-secrets"], None),
        (["check", "--connect"], None), (["schema"], None), (["login", "nosuch"], None), (["logout", "nosuch"], None),
        (["login", login, "--no-browser"], pasted), (["login", login, "--no-browser"], b"\n"),
        (["logout", login], None),
        (["login", login, "--no-browser"], new().encode() + b"\n"),
        (["explain", "GET", "/far/x", "-H", f"Authorization: Bearer {new()}", "-H", f"Cookie: a={new()}",
          "--caller", "one"], None),
        (["explain", "GET", "/far/x", "-H", f"Sidekey-Token: {ask.tokens[0]}"], None),
    ]:
        without = words[0] == "schema"
        hunt.command(document, None if without else file, *words, stdin=stdin)
    hunt.command(document, None, "init", str(document.directory / "starter.toml"))
    # A command with a proxy of its own inherits no secret.
    listed = subprocess.run([SIDEKEY, "--help"], stdout=subprocess.PIPE, text=True, check=True).stdout
    if re.search(r"^\s+exec\b", listed, re.MULTILINE):
        secret = document.file("printed", "no secret")
        status, _ = hunt.command(document, file, "exec", "--", str(document.helper), str(secret))
        check("canaries: a command runs with a proxy of its own", status == 0, status)


def check_mistakes(hunt):
    """Every place with every mistake, and the secret where something else belongs, through `sidekey check`."""
    directory = hunt.directory / "mistakes"
    directory.mkdir()
    count = accepted = 0
    for place in config.places():
        for name, mistake in config.MISTAKES.items():
            document = config.Document(directory, hunt.canaries, "value", hunt.ports(),
                                       write=lambda _, value, mistake=mistake: mistake(value, directory))
            document.put(place)
            file = directory / "sidekey.toml"
            file.write_text(document.text())
            status, told = hunt.command(document, file, "check")
            count += 1
            accepted += status == 0
            if status not in (0, 2) or (status == 2 and b"sidekey.toml" not in told):
                check(f"canaries: {name} at {place} is told of", False, f"{status} {told!r}")
    for name, text in config.ELSEWHERE.items():
        for make in [word, lambda: "napi_" + word(50).lower(), lambda: word(32).lower()]:
            value = hunt.canaries.add(make(), "secret elsewhere", (), name).value
            document = config.Document(directory, hunt.canaries, "value", hunt.ports())
            file = directory / "sidekey.toml"
            written = text.format(value)
            if "[route." not in written:
                written += '\n[route.z]\nupstream = "http://127.0.0.1:9"\ncredential = false\n'
            file.write_text(written)
            status, told = hunt.command(document, file, "check")
            count += 1
            accepted += status == 0
    figure(f"{count} mistaken configurations, {accepted} of them taken as well written")
    check("canaries: mistakes are told of", accepted < count / 10, f"{accepted} of {count}")


def suite_canaries(directory, tools):
    """A marked secret in every place that takes one, all that can go wrong, and a search of all that came out."""
    for name, package in [("nghttpd", "nghttp2-server"), ("openssl", "openssl"), ("curl", "curl"), ("ps", "procps")]:
        Tools.program(name, package)
    hunt = Hunt(directory, tools)
    hunt.h2 = free_port()
    covered, sources = set(), os.environ.get("CANARY_SOURCES", "file").split()
    with contextlib.ExitStack() as stack:
        (directory / "h2" / "up" / "h2").mkdir(parents=True)
        stack.enter_context(Process("nghttpd", "--no-tls", "-d", directory / "h2", hunt.h2, stdout=subprocess.DEVNULL))
        for source in sources:
            for store in ["redis", "file"]:
                document, ask = run_whole(hunt, source, store)
                covered |= {(place, source) for place in document.covered}
                echoed = ask.echoed
    check_mistakes(hunt)
    every = {(place, source) for place in config.places() if place not in config.NEVER for source in sources}
    check("canaries: every place that takes a secret had one, from each kind of source", covered == every,
          sorted(every ^ covered))
    # The search finds what is there: upstreams repeated what they got.
    seen = hunt.canaries.find("repeated by upstreams", echoed)
    kinds = {canary.kind for canary in seen}
    check("canaries: the search sees what upstreams repeat, in each of the ways",
          {"password", "bearer token", "header value", "access token"} <= kinds, kinds)
    # And in the log: a word that is there, marked as if it were a secret.
    planted = Canaries()
    planted.add("named-client-credentials-client-secret-ok", "planted")
    check("canaries: the search sees what the log holds", planted.find("planted", b"".join(hunt.searched["the log"])))
    del hunt.canaries.bytes["repeated by upstreams"]
    tell(hunt)


def tell(hunt):
    hunt.search()
    kinds = {}
    for canary in hunt.canaries.all:
        kinds[canary.kind] = kinds.get(canary.kind, 0) + 1
    told = ", ".join(f"{count} × {what}" for what, count in sorted(kinds.items()))
    figure(f"{len(hunt.canaries.all)} canaries: {told}")
    for where, size in hunt.canaries.bytes.items():
        found = sum(place == where or place.startswith(where) for place, _, _ in hunt.found)
        figure(f"{size:>12} bytes  {found} found  {where}")
    for place, canary, around in hunt.found[:60]:
        say(f"        FOUND in {place}: {canary}: …{around!r}…")
    check("canaries: none is found outside the connections that it is meant for", not hunt.found, len(hunt.found))


SUITES = {"canaries": suite_canaries}
