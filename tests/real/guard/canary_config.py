"""Configurations with a canary in every place that takes a secret. The places are those of `sidekey schema`."""

import json
import os
import subprocess

from support import SIDEKEY
from .canary_marks import spiced, word

SOURCES = ["env", "file", "exec", "value"]
# Where a private key may be written and is refused: this type shows who it is by its secret alone.
NEVER = {f"{where}:aura.clients[].private_key" for where in ["credential.*", "route.*.credential"]}
PROXY = "egress_proxy.password"

# Prints a secret, and leaves what the process got for the suite to search.
HELPER = """#!/bin/sh
tr '\\0' '\\n' < /proc/$$/environ > {dump}/$$.environ
tr '\\0' '\\n' < /proc/$$/cmdline > {dump}/$$.cmdline
cat "$1" >&2
sleep 0.05
cat "$1"
"""
FAILING = """#!/bin/sh
cat "$1"; cat "$1" >&2
exit 3
"""


def places():
    """Every key of the file that takes a secret, as a path through the schema."""
    ran = subprocess.run([SIDEKEY, "schema"], stdout=subprocess.PIPE, check=True)
    schema, found = json.loads(ran.stdout), set()

    def walk(node, path):
        match node.get("$ref"):
            case "#/$defs/secret":
                found.add(path)
            case "#/$defs/credential":
                for kind in schema["$defs"]["credential"]["oneOf"]:
                    walk(kind, f"{path}:{kind['properties']['type']['const']}")
        for one in node.get("anyOf", []) + node.get("oneOf", []):
            walk(one, path)
        for key, value in node.get("properties", {}).items():
            walk(value, f"{path}.{key}".lstrip("."))
        for key, suffix in [("items", "[]"), ("additionalProperties", ".*")]:
            if isinstance(node.get(key), dict):
                walk(node[key], path + suffix)

    walk(schema, "")
    return sorted(found)


def quoted(text):
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False)


def table(pairs):
    return "{ " + ", ".join(f"{key} = {value}" for key, value in pairs) + " }"


class Document:
    """One configuration. `ports`: of the peers. `write`: what stands in the place of a secret's source."""

    def __init__(self, directory, canaries, source, ports, write=None):
        self.directory, self.canaries, self.source, self.ports = directory, canaries, source, ports
        self.write = write or self.reference
        self.environment, self.covered, self.files, self.number = {}, set(), [], 0
        self.server, self.store, self.sections, self.routes = [], [], [], []
        self.dump = directory / "dump"
        for folder in [self.dump, directory / "secrets"]:
            folder.mkdir(parents=True, exist_ok=True)
        self.helper = self.program("helper", HELPER)
        self.failing = self.program("failing", FAILING)

    def program(self, name, text):
        path = self.directory / name
        path.write_text(text.format(dump=self.dump))
        path.chmod(0o700)
        return path

    def file(self, name, text):
        path = self.directory / "secrets" / name
        path.touch(0o600)
        path.write_text(text)
        return path

    def reference(self, place, value):
        """The secret's source, of the kind of this document."""
        self.number += 1
        # A proxy's password would be asked for at each connection, and takes no command.
        source = "file" if self.source == "exec" and place.endswith(PROXY) else self.source
        match source:
            case "env":
                name = f"CANARY_{self.number}"
                self.environment[name] = value
                return table([("env", quoted(name))])
            case "value":
                return table([("value", quoted(value))])
        self.files.append(path := self.file(str(self.number), value))
        if source == "file":
            return table([("file", quoted(str(path)))])
        return table([("exec", f"[{quoted(str(self.helper))}, {quoted(str(path))}]")])

    def secret(self, place, homes=()):
        """A new canary for the place, and the TOML of its source."""
        self.covered.add(place)
        last, about = place.rstrip("[]").rpartition(".")[2], (place.split(".")[0], homes, f"{place}, {self.source}")
        match last:
            case "private_key":
                value = self.canaries.private_key("private key", homes, about[2])
            case "encryption_key":
                value = self.canaries.seal_key("encryption key", about[2])
            case "token" | "admin_token":
                kind = {"caller": "caller token", "server": "admin token"}.get(about[0], "bearer token")
                value = self.canaries.new(kind, homes, about[2]).value
            case _:
                kind = {"client_secret": "client secret", "value": "header value"}.get(last, last)
                kind = "proxy password" if place.endswith(PROXY) else kind
                kind = "redis password" if place == "store.password" else kind
                value = self.canaries.add(spiced(), kind, homes, about[2]).value
        return value, self.write(place, value)

    def put(self, place, **more):
        """The place, with what must stand around it. Gives the secret."""
        match place.partition(":"):
            case ("server.admin_token", _, _):
                value, source = self.secret(place)
                self.server.append(f"admin_token = {source}")
            case ("server.egress_proxy.password", _, _):
                value, source = self.secret(place, [("proxy", "server")])
                self.server.append(f"egress_proxy = {self.proxy('server', source)}")
            case ("store.password", _, _):
                value, source = self.secret(place, [("redis", "")])
                self.store += ['type = "redis"', f'url = "redis://127.0.0.1:{self.ports["redis"]}"',
                               f"password = {source}"]
            case ("store.encryption_key", _, _):
                value, source = self.secret(place)
                self.store.append(f"encryption_key = {source}")
            case ("store.encryption_key[]", _, _):
                (value, one), (_, other) = self.secret(place), self.secret(place)
                self.store.append(f"encryption_key = [{one}, {other}]")
            case ("caller.*.token", _, _):
                value, source = self.secret(place)
                self.sections.append(f"[caller.one]\ntoken = {source}")
            case ("caller.*.token[]", _, _):
                (value, one), (_, other) = self.secret(place), self.secret(place)
                self.sections.append(f"[caller.several]\ntoken = [{one}, {other}]")
            case ("route.*.egress_proxy.password", _, _):
                value, source = self.secret(place, [("proxy", "route")])
                self.route("by-proxy", "false", f"egress_proxy = {self.proxy('route', source)}\nallow_cleartext = true",
                           upstream="http://far.example/up/by-proxy")
            case ("credential.*" | "route.*.credential" as where, ":", rest):
                value = self.credential(place, where, rest, **more)
            case _:
                raise KeyError(f"no canary is put at {place}; say in canary_config.py where it belongs")
        return value

    def proxy(self, user, source):
        return table([("url", quoted(f"http://127.0.0.1:{self.ports['proxy']}")), ("username", quoted(user)),
                      ("password", source)])

    def credential(self, place, where, rest, fault="ok", method="basic"):
        kind, _, key = rest.partition(".")
        inline = where.startswith("route")
        name = f"{'inline' if inline else 'named'}-{kind}-{key.replace('[].', '-').replace('.', '-')}-{fault}-{method}"
        name = name.replace("_", "-")
        homes = {"client_secret": [("authorization", name)], "private_key": [], "password": [("upstream", name)],
                 "token": [("upstream", name)], "value": [("upstream", name)]}[key.rpartition(".")[2]]
        host = f"127.0.0.1:{self.ports['authorization']}"
        if key == PROXY:
            homes, host = [("proxy", name)], "token.example"
        value, source = self.secret(place, homes)
        pairs = [("type", quoted(kind)), ("lease_timeout", '"1s"')]
        login = kind in ("authorization_code", "neon_oauth")
        match kind:
            case "basic":
                pairs += [("username", quoted("u")), ("password", source)]
            case "bearer":
                pairs += [("token", source), ("encoding", quoted("base64" if inline else "plain"))]
            case "header":
                pairs += [("name", '"X-Key"'), ("value", source)]
            case _:
                pairs += [("token_url", quoted(f"http://{host}/token/{fault}/{name}")), ("fetch_timeout", '"2s"'),
                          ("hosts", '["127.0.0.1", "token.example"]')]
        if login:
            pairs += [("auth_url", quoted(f"http://127.0.0.1:{self.ports['authorization']}/auth/{name}")),
                      ("redirect_uri", quoted(f"http://127.0.0.1:{self.ports['admin']}/callback"))]
            if kind == "neon_oauth":
                pairs.append(("issuer", quoted(f"http://127.0.0.1:{self.ports['authorization']}/")))
            if fault == "ok" and key != PROXY:
                pairs.append(("revoke_url", quoted(f"http://{host}/token/description/{name}")))
        if key.startswith("clients"):
            own = [("name", '"first"'), ("client_id", '"first-id"'), (key.rpartition(".")[2], source)]
            if key.endswith("private_key"):
                own.append(("key_algorithm", '"EdDSA"'))
                pairs.append(("auth_method", '"private_key_jwt"'))
            elif kind != "aura":
                pairs.append(("auth_method", quoted(method)))
            pairs.append(("clients", f"[{table(own)}]"))
        elif key in ("client_secret", "private_key", PROXY):
            pairs.append(("client_id", '"an-id"'))
            if key == PROXY:
                pairs += [("egress_proxy", self.proxy(name, source)), ("allow_cleartext", "true")]
                if kind == "aura":
                    own = self.canaries.add(spiced(), "client secret", [("authorization", name)]).value
                    pairs.append(("client_secret", table([("value", quoted(own))])))
                else:
                    pairs.append(("auth_method", '"none"'))
            else:
                pairs.append((key, source))
                if key == "private_key":
                    pairs += [("auth_method", '"private_key_jwt"'), ("key_algorithm", '"EdDSA"')]
                elif kind != "aura":
                    pairs.append(("auth_method", quoted(method)))
        if inline:
            self.route(name, table(pairs))
        else:
            self.sections.append(f"[credential.{name}]\n" + "\n".join(f"{key} = {value}" for key, value in pairs))
            self.route(name, quoted(name))
        return value

    def route(self, name, credential, extra="", upstream=None):
        self.routes.append(name)
        upstream = upstream or f"http://127.0.0.1:{self.ports['upstream']}/up/{name}"
        self.sections.append(f'[route.{name}]\npath = "/{name}"\nupstream = "{upstream}"\ncredential = {credential}\n'
                             f'response_timeout = "1s"\nconnect_timeout = "1s"\n{extra}')

    def command(self, name, text, failing=False):
        """A route whose credential is a command that prints the text."""
        helper = self.failing if failing else self.helper
        path = self.file(name, text)
        words = f"[{quoted(str(helper))}, {quoted(str(path))}]"
        self.route(name, table([("type", '"exec"'), ("command", words), ("lease_timeout", '"1s"')]))

    def text(self, listen='"127.0.0.1:0"', admin="false"):
        server = "\n".join([f"listen = {listen}", f"admin = {admin}", *self.server])
        store = "[store]\n" + "\n".join(self.store) + "\n" if self.store else ""
        if not self.routes:
            self.route("plain", "false")
        return f"[server]\n{server}\n{store}" + "\n".join(self.sections) + "\n"


def environment(document, directory):
    """The variables of a run: nothing of the suite's own but what every program needs."""
    own = {name: os.environ[name] for name in ["PATH", "HOME", "LANG"] if name in os.environ}
    run = directory / "run"
    run.mkdir(mode=0o700, exist_ok=True)
    return {**own, "XDG_RUNTIME_DIR": str(run), "XDG_STATE_HOME": str(directory / "state"), "BROWSER": "true",
            "RUST_BACKTRACE": "full", **document.environment}


# How a person may get a secret wrong. {0}: the secret; what stands there instead of a source.
MISTAKES = {
    "a bare string": lambda value, folder: quoted(value),
    "a line break in it": lambda value, folder: table([("value", quoted(value + "\n" + value))]),
    "a control character in it": lambda value, folder: table([("value", quoted(value + "\x07"))]),
    "two lines in the file": lambda value, folder: table([("file", quoted(two_lines(value, folder)))]),
    "the secret for the variable's name": lambda value, folder: table([("env", quoted(value))]),
    "the secret for the file's name": lambda value, folder: table([("file", quoted(value))]),
    "the secret for the command": lambda value, folder: table([("exec", f"[{quoted(value)}]")]),
    "the secret as an argument": lambda value, folder: table([("exec", f'["/bin/false", {quoted(value)}]')]),
    "the command as one text": lambda value, folder: table([("exec", quoted("echo " + value))]),
    "a misspelt kind": lambda value, folder: table([("vlaue", quoted(value))]),
    "the secret for the kind": lambda value, folder: table([(quoted(value), '"x"')]),
    "two kinds": lambda value, folder: table([("value", quoted(value)), ("env", '"X"')]),
    "a list": lambda value, folder: f"[[{quoted(value)}]]",
    "no closing quote": lambda value, folder: quoted(value)[:-1],
    "no quotes": lambda value, folder: value.split("/")[0],
    "no closing brace": lambda value, folder: f"{{ value = {quoted(value)}",
    "a key after it": lambda value, folder: f"{{ value = {quoted(value)} }}\n{word_of(value)} = true",
}


def two_lines(value, folder):
    path = folder / "two-lines"
    path.touch(0o600)
    path.write_text(f"{value}\n{value}\n")
    return str(path)


def word_of(value):
    """As much of it as a bare key may hold."""
    return "".join(letter for letter in value if letter.isalnum())[:40]


# The secret where something else belongs. {0}: the secret.
ELSEWHERE = {
    "a key of [server]": '[server]\n{0} = "x"\n',
    "a table": '[{0}]\nx = 1\n',
    "a key of a route": '[route.r]\nupstream = "http://127.0.0.1:9"\ncredential = false\n{0} = 1\n',
    "a key of a credential": '[credential.c]\ntype = "bearer"\ntoken = {{ env = "HOME" }}\n{0} = 1\n',
    "the name of a credential": '[route.r]\nupstream = "http://127.0.0.1:9"\ncredential = "{0}"\n',
    "the type of a credential": '[credential.c]\ntype = "{0}"\n',
    "a provider": '[route.r]\nprovider = "{0}"\ncredential = false\n',
    "an upstream": '[route.r]\nupstream = "{0}"\ncredential = false\n',
    "an upstream's host, in clear text": '[route.r]\nupstream = "http://{0}/"\ncredential = false\n',
    "an upstream's scheme": '[route.r]\nupstream = "{0}://h/"\ncredential = false\n',
    "an upstream's user": '[route.r]\nupstream = "https://u:{0}@h.example"\ncredential = false\n',
    "an upstream's query": '[route.r]\nupstream = "https://h.example/?key={0}"\ncredential = false\n',
    "a path": '[route.r]\npath = "{0}"\nupstream = "http://127.0.0.1:9"\ncredential = false\n',
    "a host": '[route.r]\nhost = "http://{0}"\nupstream = "http://127.0.0.1:9"\ncredential = false\n',
    "a pattern": '[route.r]\nallow = ["{0}"]\nupstream = "http://127.0.0.1:9"\ncredential = false\n',
    "a listener": '[server]\nlisten = "{0}"\n',
    "the admin listener": '[server]\nadmin = "{0}"\n',
    "a duration": '[server]\nidle_timeout = "{0}"\n',
    "a size": '[server]\nmax_target = "{0}"\n',
    "a number": '[server]\nworkers = "{0}"\n',
    "a caller's route": '[caller.c]\ntoken = {{ env = "HOME" }}\nroutes = ["{0}"]\n',
    "a caller's table": '[caller.{0}]\n',
    "a proxy": '[server]\negress_proxy = "{0}"\n',
    "a proxy's user": '[server]\negress_proxy = "http://u:{0}@proxy.example:3128"\n',
    "a Redis URL": '[store]\ntype = "redis"\nurl = "redis://:{0}@cache.example"\n',
    "a store's type": '[store]\ntype = "{0}"\n',
    "a header's name": '[credential.c]\ntype = "header"\nname = "{0} x"\nvalue = {{ env = "HOME" }}\n',
    "a token URL": '[credential.c]\ntype = "client_credentials"\ntoken_url = "{0}"\nclient_id = "i"\n',
    "a method": '[credential.c]\ntype = "client_credentials"\nauth_method = "{0}"\n',
    "an account": '[route.r]\nupstream = "http://127.0.0.1:9"\ncredential = false\naccount = "{0}"\n',
}
