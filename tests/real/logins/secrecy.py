"""Nothing secret in what is written."""

import base64
import subprocess
import urllib.parse

from support import SIDEKEY, check, figure
from . import lab
from .person import Person


def suite_secrets(directory, tools):
    """Logs at trace level, what commands print, a sealed store: no secret that the server saw is in any."""
    port = lab.free_port()
    redirect = f"http://127.0.0.1:{port}/callback"
    with lab.Server(tools, [redirect], access_ttl=1) as server:
        seen = []
        for client in server.clients:
            own = directory / client
            own.mkdir()
            config = lab.configuration(server, redirect=redirect, admin=port, client=client, directory=own,
                                       store=lab.file_store(own, sealed=True))
            seen.append(one_client(own, server, config, redirect, client))
        secrets = {(secret["value"], secret["what"]) for secret in server.secrets()}
    secrets |= {(lab.ADMIN_TOKEN, "admin token"), (lab.ENCRYPTION_KEY, "encryption key")}
    kinds = {what for _, what in secrets}
    wanted = {"state", "code", "code_verifier", "access token", "refresh token", "id token", "client secret",
              "client_assertion", "private key"}
    check("the server has seen a secret of each kind", wanted <= kinds, wanted - kinds)
    figure(f"{len(secrets)} secrets of {len(kinds)} kinds; logs of {sum(len(s['log']) for s in seen)} bytes, "
           f"stores of {sum(len(s['store']) for s in seen)} bytes")
    for place in ["log", "output", "store"]:
        text = b"\n".join(found[place] for found in seen)
        check(f"there is something to search in: {place}", len(text) > 100, len(text))
        found = hits(text, secrets)
        check(f"no secret in: {place}", not found, found)
    cookies = {(value, "cookie") for found in seen for value in found["cookies"]}
    tickets = {(ticket, "ticket") for found in seen for ticket in found["tickets"]}
    log = b"\n".join(found["log"] for found in seen)
    check("there were cookies and tickets", cookies and tickets, f"{len(cookies)}, {len(tickets)}")
    # Commands print the one-time link: that is what it is for.
    found = hits(log, cookies | tickets)
    check("no cookie and no ticket in: log", not found, found)


def one_client(own, server, config, redirect, client):
    """A login each way, refreshes, what goes wrong, a logout; everything that was written."""
    outputs, people = [], [Person() for _ in range(3)]
    account = f"{client}-alice"
    with lab.Instance(own, config, "--log-level", "trace") as instance:
        page = instance.log_in(account, people[0])
        check(f"secrets, {client}: a login", "It worked" in page.text, page)
        check(f"secrets, {client}: a request", lab.until(lambda: instance.ask(account)[0] == 200), instance.ask(account))
        lab.until(lambda: instance.ask(account)[0] and server.account(account)["generations"] >= 2, pause=0.1)
        check(f"secrets, {client}: refreshed", server.account(account)["generations"] >= 2, server.account(account))

        status, login, page = lab.log_in_by_command(instance.file, f"{client}-bob")
        check(f"secrets, {client}: a login by the command", status == 0, login.errors)
        outputs += [login.output, login.errors]
        tickets = [link.partition("ticket=")[2] for link in login.output.split() if "ticket=" in link]

        # Everything that ends in an error text: a forged and a repeated callback, a refresh that is refused.
        person = people[1]
        page = person.open(f"{instance.admin}/connect/neon?account={client}-carol")
        page = person.submit(page, token=lab.ADMIN_TOKEN)
        back = person.log_in(page, f"{client}-carol", until=redirect).url
        answers = [Person().open(back), person.open(back.replace("iss=", "iss=x")), person.open(back)]
        outputs += [page.body for page in answers]
        server.set(hang_up=1)
        used = server.stats()["used"]
        lab.until(lambda: instance.ask(account, timeout=30) and server.stats()["used"] > used, pause=0.1)
        server.set(hang_up=0)
        instance.ask(account, timeout=30)
        for name in [account, f"{client}-bob"]:
            words = [SIDEKEY, "logout", "neon", "--account", name, "-c", instance.file, "--log-level", "trace"]
            ran = subprocess.run(words, env=lab.ENVIRONMENT, capture_output=True, text=True, check=False)
            outputs += [ran.stdout, ran.stderr]
        page = instance.log_in(account, people[2])
        check(f"secrets, {client}: a login to leave something in the store", "It worked" in page.text, page)
        lab.until(lambda: instance.ask(account)[0] == 200)
    return {
        "log": instance.said().encode(),
        "output": "\n".join(outputs).encode(),
        "store": b"\n".join(file.read_bytes() for file in (own / "store").rglob("*") if file.is_file()),
        "cookies": set().union(*(person.cookies for person in people)),
        "tickets": tickets,
    }


def hits(text, secrets):
    """Which kinds of secrets stand in a text, as they are or in another spelling."""
    found = {}
    for value, what in secrets:
        spellings = {value, urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value)}
        plain = value.encode()
        # base64 of it, wherever in a longer text it began.
        for shift in range(3):
            encoded = base64.b64encode(b"\0" * shift + plain).decode().rstrip("=")
            inner = encoded[4 if shift else 0:-3]
            spellings |= {inner, inner.replace("+", "-").replace("/", "_")}
        spellings.add(plain.hex())
        if any(len(spelling) >= 8 and spelling.encode() in text for spelling in spellings):
            found[what] = found.get(what, 0) + 1
    return found


SUITES = {"secrets": suite_secrets}
