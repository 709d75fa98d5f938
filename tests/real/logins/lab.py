"""The authorization server, sidekey in front of its API, and what can be done with the two."""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import queue
import re
import secrets
import subprocess
import threading
import time
import urllib.parse

from support import SIDEKEY, Process, Sidekey, free_port, say
from .person import Person

ADMIN_TOKEN = "the-admin-token-" + secrets.token_hex(8)
ENCRYPTION_KEY = base64.b64encode(secrets.token_bytes(32)).decode()
SCOPE = '["openid", "offline_access"]'
# A login must not open anybody's real browser.
ENVIRONMENT = {**{k: v for k, v in os.environ.items() if not k.startswith("SIDEKEY_")}, "BROWSER": "true"}
RETRY_FOR = 20


class Server(Process):
    """The authorization server and the API behind it: server.mjs."""

    def __init__(self, tools, redirects, quiet=False, **settings):
        settings = json.dumps({"redirects": redirects, **settings})
        words = ["node", tools.node / "server.mjs", settings]
        super().__init__(*words, quiet=quiet, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        first = self.child.stdout.readline()
        if not first:
            raise RuntimeError("the authorization server does not start; run it by hand to see why")
        found = json.loads(first)
        self.issuer, self.api, self.control, self.clients = (found[k] for k in ["issuer", "api", "control", "clients"])

    def _ask(self, method, path, body=None):
        parts = urllib.parse.urlsplit(self.control)
        with contextlib.closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)) as connection:
            connection.request(method, path, body and json.dumps(body))
            return json.loads(connection.getresponse().read())

    def stats(self):
        return self._ask("GET", "/stats")

    def account(self, name):
        return self._ask("GET", "/account?" + urllib.parse.urlencode({"sub": name}))

    def secrets(self):
        return self._ask("GET", "/secrets")

    def set(self, **settings):
        self._ask("POST", "/set", settings)

    def next(self, after, seconds):
        """Waits for a request to the token endpoint beyond the first `after`; how many there have been."""
        return self._ask("GET", f"/next?after={after}&wait={seconds * 1000:.0f}")["arrivals"]


def configuration(server, *, redirect, store, admin=None, client="post", directory=None, extra="", server_extra=""):
    """One credential with accounts, one route. `store`: lines of TOML. `admin`: a port."""
    known = server.clients[client]
    methods = {"post": "post", "basic": "basic", "none": "none"}
    lines = [f'client_id = "{known["client_id"]}"', f'auth_method = "{methods.get(client, "private_key_jwt")}"']
    if "client_secret" in known:
        lines.append(f'client_secret = {{ value = "{known["client_secret"]}" }}')
    if "private_key" in known:
        file = pathlib.Path(directory) / "client.pem"
        file.touch(0o600)
        file.write_text(known["private_key"])
        lines += [f'private_key = {{ file = "{file}" }}', f'key_id = "{known["key_id"]}"',
                  f'key_algorithm = "{known["key_algorithm"]}"']
    listen = f'"127.0.0.1:{admin}"' if admin else "false"
    token = f'admin_token = {{ value = "{ADMIN_TOKEN}" }}' if admin else ""
    client_lines = "\n".join(lines)
    return f"""
[server]
listen = "127.0.0.1:0"
admin = {listen}
{token}
{server_extra}
[route.neon]
provider = "neon"
path = "/neon"
upstream = "{server.api}/api/v2"
credential = "neon"
[credential.neon]
type = "authorization_code"
issuer = "{server.issuer}"
{client_lines}
redirect_uri = "{redirect}"
scope = {SCOPE}
auth_params = {{ prompt = "consent" }}
account_header = "Sidekey-Account"
{extra}
[store]
{store}
"""


def file_store(directory, sealed=False):
    """The lines of a file store of this suite."""
    key = f'\nencryption_key = {{ value = "{ENCRYPTION_KEY}" }}' if sealed else ""
    return f'type = "file"\npath = "{directory}/store"{key}'


class Instance(Sidekey):
    """A running sidekey with a login."""

    def __init__(self, directory, config, *arguments, quiet=False):
        pathlib.Path(directory).mkdir(exist_ok=True)
        self.directory = pathlib.Path(directory)
        super().__init__(directory, config, *arguments, quiet=quiet, env=ENVIRONMENT)
        found = re.search(r'^admin = "(127\.0\.0\.1:\d+)"', config, re.MULTILINE)
        self.admin = found and f"http://{found[1]}"

    def ask(self, account=None, timeout=RETRY_FOR, path="/neon/whoami"):
        """One request: its status, sidekey's own code for it if it is sidekey's, and the account it arrived as."""
        with contextlib.closing(Caller(self.addresses[0], timeout)) as caller:
            return caller.ask(account, path)

    def log_in(self, account, person=None):
        """From the page that a person opens to the one that says that it worked; the last page."""
        person = person or Person()
        page = person.open(f"{self.admin}/connect/neon?" + urllib.parse.urlencode({"account": account}))
        if page.status != 200:
            return page
        page = person.submit(page, token=ADMIN_TOKEN)
        return page if page.status != 200 else person.log_in(page, account)

    def crash(self):
        """kill -9."""
        self.child.kill()
        self.child.wait()
        self.log.close()


class Caller:
    """One connection of a caller."""

    def __init__(self, address, timeout=RETRY_FOR):
        host, _, port = address.rpartition(":")
        self.connection = http.client.HTTPConnection(host, int(port), timeout=timeout)

    def ask(self, account=None, path="/neon/whoami"):
        self.connection.request("GET", path, headers={"Sidekey-Account": account} if account else {})
        response = self.connection.getresponse()
        body = response.read()
        arrived = None
        if response.status == 200:
            arrived = json.loads(body)["account"]
        return response.status, response.headers.get("Sidekey-Error"), arrived

    def close(self):
        self.connection.close()


class Requests(threading.Thread):
    """Asks one instance as one account, again and again; counts every answer."""

    def __init__(self, address, account, pause=0.02):
        super().__init__(daemon=True)
        self.address, self.account, self.pause = address, account, pause
        self.answers, self.broken, self.ending = {}, 0, threading.Event()
        self.start()

    def run(self):
        caller = Caller(self.address)
        while not self.ending.wait(self.pause):
            try:
                answer = caller.ask(self.account)
            except (OSError, http.client.HTTPException):
                self.broken += 1
                caller.close()
                caller = Caller(self.address)
                continue
            self.answers[answer] = self.answers.get(answer, 0) + 1
        caller.close()

    @property
    def served(self):
        return self.answers.get((200, None, self.account), 0)

    @property
    def others(self):
        """What was answered that should not have been."""
        return {str(answer): count for answer, count in self.answers.items() if answer != (200, None, self.account)}

    def end(self):
        self.ending.set()
        self.join()


def until(condition, seconds=RETRY_FOR, pause=0.02):
    """Waits until something holds; what it is by then."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(pause)
    return found


class Command(Process):
    """A command of sidekey whose output is read while it runs."""

    def __init__(self, *words, stdin=None):
        super().__init__(SIDEKEY, *words, env=ENVIRONMENT, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines, self.output, self.errors = queue.Queue(), "", ""
        self.readers = [threading.Thread(target=reader, daemon=True) for reader in (self._read, self._read_errors)]
        for reader in self.readers:
            reader.start()

    def _read(self):
        for line in self.child.stdout:
            self.output += line
            self.lines.put(line)
        self.lines.put(None)

    def _read_errors(self):
        for line in self.child.stderr:
            self.errors += line

    def wait_for(self, pattern, seconds=RETRY_FOR):
        """The first match of a pattern in what it prints."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                line = self.lines.get(timeout=left)
                if line is None:
                    break
                if found := re.search(pattern, line):
                    return found
        raise RuntimeError(f"{pattern!r} was not printed; {self.output!r}, {self.errors!r}")

    def finish(self, seconds=RETRY_FOR):
        """Its exit status; none if it does not end."""
        try:
            status = self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            status = None
        for reader in self.readers:
            reader.join(seconds)
        return status


def log_in_by_command(file, account):
    """`sidekey login`, its link followed by a person; the exit status, what it printed, and the last page."""
    with Command("login", "neon", "--account", account, "-c", file) as login:
        link = login.wait_for(r"http://\S+/connect/neon\?ticket=[^\s\"']+")[0]
        person = Person()
        page = person.log_in(person.open(link), account)
        return login.finish(), login, page


def tell_log(instance):
    """What an instance said, where a suite does not know what to make of it."""
    say("the log of sidekey:\n" + instance.said()[-4000:])
