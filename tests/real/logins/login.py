"""Whole logins, each way in which one can be made, and what comes after: refreshes, logout."""

import json
import subprocess
import time

from support import SIDEKEY, check, figure, number
from . import lab
from .person import Person

ACCOUNT = "alice"
GENERATIONS = number("LOGIN_GENERATIONS", 200)


def suite_login(directory, tools):
    """Logins without a browser: each client authentication, each way in, many refreshes, logout."""
    each_client(directory, tools)
    by_command_alone(directory, tools)
    by_pasted_address(directory, tools)
    bad_callbacks(directory, tools)
    through_the_instance(directory, tools)


def room(directory, name):
    own = directory / name
    own.mkdir()
    return own


def arrives(name, instance, account=ACCOUNT):
    found = lab.until(lambda: (instance.ask(account)[0] == 200) and instance.ask(account)) or instance.ask(account)
    return check(f"{name}: a request arrives as {account}", found == (200, None, account), found)


def login_required(name, instance, account=ACCOUNT):
    # A logout is noticed within a moment, not in the same one.
    lab.until(lambda: instance.ask(account)[1] == "login_required", seconds=2)
    found = instance.ask(account)
    check(f"{name}: 503 login_required", found == (503, "login_required", None), found)


def each_client(directory, tools):
    """Post, Basic with what needs encoding, no secret, and each algorithm of private_key_jwt."""
    port = lab.free_port()
    redirect = f"http://127.0.0.1:{port}/callback"
    with lab.Server(tools, [redirect], access_ttl=1) as server:
        for client in server.clients:
            own = room(directory, f"client-{client}")
            config = lab.configuration(server, redirect=redirect, admin=port, client=client, directory=own,
                                       store=lab.file_store(own))
            account = f"{ACCOUNT}-{client}"
            with lab.Instance(own, config) as instance:
                page = instance.log_in(account)
                if not check(f"client {client}: logs in", page.status == 200 and "It worked" in page.text, page):
                    continue
                arrives(f"client {client}", instance, account)
                refreshed = lab.until(lambda: instance.ask(account) == (200, None, account)
                                      and server.account(account)["generations"] >= 2, pause=0.1)
                check(f"client {client}: its token is refreshed", refreshed, server.account(account))
        check("each client: no refresh token is presented twice", not server.stats()["repeats"], server.stats())


def by_command_alone(directory, tools):
    """`sidekey login` where nothing runs: it listens for itself."""
    own, port = room(directory, "alone"), lab.free_port()
    redirect = f"http://127.0.0.1:{port}/api/auth/callback/neon"
    with lab.Server(tools, [redirect], access_ttl=1) as server:
        # No admin listener, so nothing to go through.
        config = lab.configuration(server, redirect=redirect, store=lab.file_store(own))
        file = own / "login.toml"
        file.write_text(config)
        status, login, page = lab.log_in_by_command(file, ACCOUNT)
        check("login alone: the page says that it worked", page.status == 200 and "It worked" in page.text, page)
        check("login alone: the command ends well", status == 0, f"{status}: {login.errors}")
        said = login.output
        check("login alone: it says for whom and what", "alice" in said and "offline_access" in said, said)
        with lab.Instance(own, config) as instance:
            arrives("login alone: in an instance that starts after", instance)
            login_required("login alone: another account", instance, "bob")
            # The instance runs, and cannot be asked: only the store tells it.
            status, login, page = lab.log_in_by_command(file, "bob")
            check("login beside: the command ends well", status == 0, f"{status}: {login.errors}")
            arrives("login beside: the instance takes it up without a restart", instance, "bob")
        check("login alone: nothing is presented twice", not server.stats()["repeats"], server.stats())


def by_pasted_address(directory, tools):
    """`--no-browser`: another machine's browser fails to reach the redirect URI, and its address is pasted."""
    own, port = room(directory, "pasted"), lab.free_port()
    redirect = f"http://localhost:{port}/callback"
    with lab.Server(tools, [redirect]) as server:
        config = lab.configuration(server, redirect=redirect, store=lab.file_store(own))
        file = own / "login.toml"
        file.write_text(config)
        words = ["login", "neon", "--account", ACCOUNT, "--no-browser", "-c", file]
        with lab.Command(*words, stdin=subprocess.PIPE) as login:
            url = login.wait_for(rf"{server.issuer}/auth\?\S+")[0]
            person = Person()
            page = person.log_in(person.open(url), ACCOUNT, until=redirect)
            check("pasted: the browser is sent back", page.url.startswith(redirect + "?"), page)
            login.child.stdin.write(page.url + "\n")
            login.child.stdin.close()
            status = login.finish()
            check("pasted: the command ends well", status == 0, f"{status}: {login.errors}")
        with lab.Instance(own, config) as instance:
            arrives("pasted", instance)
        with lab.Command(*words, stdin=subprocess.PIPE) as login:
            login.wait_for(rf"{server.issuer}/auth\?\S+")
            login.child.stdin.write(f"{redirect}?code=somebody-elses&state=not-this-one\n")
            login.child.stdin.close()
            status = login.finish()
            check("pasted: another login's address is refused", status == 1, f"{status}: {login.output}")


def bad_callbacks(directory, tools):
    """What may come to the redirect URI that is not the login which was begun."""
    own, port = room(directory, "callbacks"), lab.free_port()
    redirect = f"http://127.0.0.1:{port}/callback"
    with lab.Server(tools, [redirect]) as server:
        config = lab.configuration(server, redirect=redirect, admin=port, store=lab.file_store(own))
        with lab.Instance(own, config) as instance:
            def consented():
                """A person who has consented, and the address to which the server sends them back."""
                person = Person()
                page = person.open(f"{instance.admin}/connect/neon?account={ACCOUNT}")
                page = person.submit(page, token=lab.ADMIN_TOKEN)
                return person, person.log_in(page, ACCOUNT, until=redirect).url

            person, back = consented()
            page = Person().open(back)
            check("callback: another browser is refused", page.status == 400, page)
            login_required("callback: nothing was logged in by it", instance)
            page = person.open(back.replace("iss=", "iss=x"))
            check("callback: another issuer is refused", page.status == 400, page)
            person, back = consented()
            page = person.open(back.replace("state=", "state=x"))
            check("callback: an unknown state is refused", page.status == 400, page)
            page = person.open(back)
            check("callback: and the login that was begun goes on", "It worked" in page.text, page)
            arrives("callback", instance)
            page = person.open(back)
            check("callback: a state is good once", page.status == 400, page)
            arrives("callback: after it came twice", instance)
            stranger = Person()
            page = stranger.open(f"{instance.admin}/connect/neon?account=bob")
            page = stranger.submit(page, token="wrong")
            check("connect: a wrong admin token is refused", page.status == 401, page)
            login_required("connect: nothing was begun by it", instance, "bob")
            # Cancel, on the server's own page.
            person = Person()
            page = person.open(f"{instance.admin}/connect/neon?account=bob")
            page = person.submit(page, token=lab.ADMIN_TOKEN)
            page = person.open(page.url + "/abort")
            check("callback: a refusal is told", page.status == 400 and "access was not granted" in page.text, page)
            login_required("callback: after a refusal", instance, "bob")


def through_the_instance(directory, tools):
    """The long life of one login."""
    own, port = room(directory, "instance"), lab.free_port()
    redirect = f"http://127.0.0.1:{port}/callback"
    with lab.Server(tools, [redirect], access_ttl=1) as server:
        config = lab.configuration(server, redirect=redirect, admin=port, store=lab.file_store(own))
        with lab.Instance(own, config) as instance:
            login_required("before the login", instance)
            status, login, page = lab.log_in_by_command(instance.file, ACCOUNT)
            check("login through the instance: the page says that it worked", "It worked" in page.text, page)
            check("login through the instance: the command ends well", status == 0, f"{status}: {login.errors}")
            arrives("login through the instance", instance)
            words = [SIDEKEY, "status", "--json", "-c", instance.file]
            ran = subprocess.run(words, env=lab.ENVIRONMENT, capture_output=True, text=True, check=False)
            accounts = json.loads(ran.stdout or "{}").get("accounts")
            check("status names the account", ACCOUNT in json.dumps(accounts), ran.stdout + ran.stderr)

            requests = lab.Requests(instance.addresses[0], ACCOUNT)
            began = time.monotonic()
            # A token lives a second; one that is refreshed late costs more than that only by accident.
            lab.until(lambda: server.account(ACCOUNT)["generations"] >= GENERATIONS, seconds=30 + 1.5 * GENERATIONS,
                      pause=0.2)
            requests.end()
            generations, stats = server.account(ACCOUNT)["generations"], server.stats()
            figure(f"{generations} generations in {time.monotonic() - began:.0f} s, {requests.served} requests, "
                   f"{stats['api']['refused']} refused by the API")
            check(f"{GENERATIONS} generations of refresh tokens", generations >= GENERATIONS, stats)
            check("no refresh token is presented twice", not stats["repeats"], stats["repeats"])
            check("no refresh is refused", not stats["errors"], stats["errors"])
            check("no request fails meanwhile", requests.served and not requests.others and not requests.broken,
                  f"{requests.others}, {requests.broken} broken")

            ran = subprocess.run([SIDEKEY, "logout", "neon", "--account", ACCOUNT, "-c", instance.file],
                                 env=lab.ENVIRONMENT, capture_output=True, text=True, check=False)
            check("logout ends well", ran.returncode == 0, f"{ran.returncode}: {ran.stdout}{ran.stderr}")
            check("logout revokes at the server", server.stats()["revocations"] >= 1, server.stats())
            check("logout: the server knows the refresh token no more", not server.account(ACCOUNT)["alive"],
                  server.account(ACCOUNT))
            login_required("after the logout, without a restart", instance)
            page = instance.log_in(ACCOUNT)
            check("a new login after it works", "It worked" in page.text, page)
            arrives("after the new login", instance)


SUITES = {"login": suite_login}
