"""Logins at Hydra, each way to show who the client is; tokens that rotate; what ends a grant, and in which words."""

import collections
import concurrent.futures
import json
import time
import urllib.parse

from support import Sidekey, check, figure, number
from logins import lab
from logins.person import Person
from .engine import ask

ACCOUNT = "alice"
GENERATIONS = number("ENGINE_GENERATIONS", 6)
# Hydra's words, as it really says them.
CONCURRENT = ["multiple concurrent requests using the same token", "Failed to refresh token. Please retry the request."]
WORDS_TOLD = 200
WORDS = {
    "invalid_client": "Client authentication failed (e.g., unknown client, no client authentication included, or unsupported "
                      "authentication method).",
    "invalid_scope": "The requested scope is invalid, unknown, or malformed.",
}


def room(directory, name):
    own = directory / name
    own.mkdir()
    return own


def arrives(name, instance, account=ACCOUNT):
    found = lab.until(lambda: (instance.ask(account)[0] == 200) and instance.ask(account)) or instance.ask(account)
    return check(f"{name}: a request arrives as {account}", found == (200, None, account), found)


def checks(engine, directory, port, redirect):
    machine(engine, room(directory, "machine"))
    each_client(engine, directory, port, redirect)
    by_command(engine, room(directory, "command"), redirect)
    rotation(engine, room(directory, "rotation"), port, redirect)
    endings(engine, room(directory, "endings"), port, redirect)
    refused_logins(engine, room(directory, "refused"), port, redirect)


def machine(engine, own):
    """client_credentials, each way to show who it is."""
    def route(name, lines):
        return f"""[route.{name}]
path = "/{name}"
upstream = "{engine.api}/api/v2"
credential = {{ type = "client_credentials", token_url = "{engine.issuer}oauth2/token", {lines} }}
"""
    secret = lambda kind: engine.clients[kind]["client_secret"]
    pem = own / "client.pem"
    pem.touch(0o600)
    pem.write_text(engine.clients["RS256"]["private_key"])
    config = '[server]\nlisten = "127.0.0.1:0"\n' + "".join(route(name, lines) for name, lines in [
        ("post", f'client_id = "client-post", auth_method = "post", client_secret = {{ value = "{secret("post")}" }}'),
        ("basic", f'client_id = "client-basic", client_secret = {{ value = "{secret("basic")}" }}'),
        ("raw", f'client_id = "client-basic", basic_encoding = "raw", client_secret = {{ value = "{secret("basic")}" }}'),
        ("key", f'client_id = "client-RS256", auth_method = "private_key_jwt", private_key = {{ file = "{pem}" }}, '
                'key_id = "key-1", key_algorithm = "RS256"'),
        ("method", f'client_id = "client-post", client_secret = {{ value = "{secret("post")}" }}'),
        ("wrong", 'client_id = "client-post", auth_method = "post", client_secret = { value = "wrong" }'),
        ("scope", f'client_id = "client-post", auth_method = "post", client_secret = {{ value = "{secret("post")}" }}, '
                  'scope = ["nope"]'),
    ])
    with Sidekey(own, config) as sidekey:
        def get(name):
            return ask(int(sidekey.addresses[0].rpartition(":")[2]), "GET", f"/{name}/whoami", headers={"Host": sidekey.addresses[0]})
        for name, client in [("post", "post"), ("basic", "basic"), ("key", "RS256")]:
            found = get(name)
            check(f"client_credentials, {name}: the API takes the token", found == (200, {"account": f"client-{client}"}), found)
        # Longer than a token lives.
        ended = time.monotonic() + 2 * engine.ttl
        answers = set()
        while time.monotonic() < ended:
            answers.add(get("post")[0])
        check("client_credentials: and the next ones, without a request that fails", answers == {200}, answers)
        for name, error in [("raw", "invalid_client"), ("method", "invalid_client"), ("wrong", "invalid_client"),
                            ("scope", "invalid_scope")]:
            status, found = get(name)
            check(f"client_credentials, {name}: 503, and nothing goes upstream", status == 503
                  and found["error"] == "credential_unavailable", f"{status} {found}")
            said = [seen for seen in engine.errors() if seen[2] == error]
            check(f"client_credentials, {name}: Hydra's words for {error}", said
                  and said[-1][3].startswith(WORDS[error]), engine.errors())
        check("client_credentials: the log has its reason", "invalid_client" in sidekey.said() and "invalid_scope" in sidekey.said(),
              sidekey.said()[-2000:])


def each_client(engine, directory, port, redirect):
    """The login in the browser."""
    for client in engine.clients:
        own = room(directory, f"client-{client}")
        config = lab.configuration(engine, redirect=redirect, admin=port, client=client, directory=own,
                                   store=lab.file_store(own))
        account = f"{ACCOUNT}-{client}"
        before = len(engine.refreshes())
        with lab.Instance(own, config) as instance:
            page = instance.log_in(account)
            if not check(f"login, {client}: it works, with PKCE", page.status == 200 and "It worked" in page.text, page):
                continue
            arrives(f"login, {client}", instance, account)
            refreshed = lab.until(lambda: instance.ask(account) == (200, None, account)
                                  and len(engine.refreshes()) > before, pause=0.1)
            check(f"login, {client}: its token is refreshed", refreshed, engine.errors()[-2:])


def by_command(engine, own, redirect):
    """`sidekey login` without an instance, and `sidekey logout`."""
    config = lab.configuration(engine, redirect=redirect, store=lab.file_store(own))
    file = own / "login.toml"
    file.write_text(config)
    status, login, page = lab.log_in_by_command(file, ACCOUNT)
    check("sidekey login: the page says that it worked", page.status == 200 and "It worked" in page.text, page)
    check("sidekey login: ends well, and says for whom and what", status == 0 and ACCOUNT in login.output
          and "offline_access" in login.output, f"{status}: {login.output}{login.errors}")
    with lab.Instance(own, config) as instance:
        arrives("sidekey login", instance)
        token = engine.newest()
        with lab.Command("logout", "neon", "--account", ACCOUNT, "-c", file) as logout:
            status = logout.finish()
        check("sidekey logout: ends well", status == 0, f"{status}: {logout.output}{logout.errors}")
        dead = engine.token({"grant_type": "refresh_token", "refresh_token": token})
        check("sidekey logout: Hydra knows the grant no more", dead[0] != 200, dead)
        figure(f"a revoked refresh token: {dead[0]} {dead[1].get('error')}: {dead[1].get('error_description', '')[-120:]}")
        found = lab.until(lambda: instance.ask(ACCOUNT)[1] == "login_required")
        check("sidekey logout: 503 login_required", found, instance.ask(ACCOUNT))


def rotation(engine, own, port, redirect):
    """Each refresh token is presented once, however many are asked for."""
    config = lab.configuration(engine, redirect=redirect, admin=port, store=lab.file_store(own))
    with lab.Instance(own, config) as instance:
        page = instance.log_in(ACCOUNT)
        check("rotation: a login", "It worked" in page.text, page)
        before, errors = len(engine.refreshes()), len(engine.errors())
        requests = [lab.Requests(instance.addresses[0], ACCOUNT, pause=0.05) for _ in range(4)]
        began = time.monotonic()
        lab.until(lambda: len(engine.refreshes()) - before >= GENERATIONS, seconds=20 + 3 * engine.ttl * GENERATIONS, pause=0.1)
        for one in requests:
            one.end()
        fresh = engine.refreshes()[before:]
        figure(f"{len(fresh)} generations in {time.monotonic() - began:.0f} s, {sum(one.served for one in requests)} requests")
        check(f"rotation: {GENERATIONS} generations, each token presented once", len(fresh) >= GENERATIONS
              and len({seen.token for seen in fresh}) == len(fresh), fresh)
        check("rotation: Hydra refuses none", engine.errors()[errors:] == [], engine.errors()[errors:])
        check("rotation: no request fails", not any(one.others or one.broken for one in requests),
              [(one.others, one.broken) for one in requests])


def endings(engine, own, port, redirect):
    """What ends a grant: a token that is presented twice, by somebody else or because its answer was lost."""
    config = lab.configuration(engine, redirect=redirect, admin=port, store=lab.file_store(own), extra='fetch_timeout = "1s"')
    with lab.Instance(own, config) as instance:
        instance.log_in(ACCOUNT)
        arrives("reuse", instance)
        before = len(engine.refreshes())
        lab.until(lambda: instance.ask(ACCOUNT) and len(engine.refreshes()) > before, pause=0.05)
        stolen = engine.tokens[engine.refreshes()[-1].token]
        status, found = engine.token({"grant_type": "refresh_token", "refresh_token": stolen})
        figure(f"a used refresh token: {status} {found.get('error')}: {found.get('error_description')}")
        check("reuse: a used token is refused", (status, found.get("error")) in [(400, "invalid_grant"), (401, "token_inactive")],
              f"{status} {found}")
        ended = lab.until(lambda: instance.ask(ACCOUNT)[1] == "login_required", seconds=4 * engine.ttl + 5, pause=0.1)
        check("reuse: it kills the whole chain; sidekey says 503 login_required", ended, instance.ask(ACCOUNT))
        said = [seen for seen in engine.refreshes() if seen.status != 200]
        figure(f"to the newest of its chain: {[(seen.status, seen.error) for seen in said][-1:]}, {(said or ['?'])[-1]}")
        check("reuse: sidekey presented no token twice", not engine.repeats(), engine.repeats())
        presented = len(engine.refreshes())
        for _ in range(20):
            instance.ask(ACCOUNT)
        check("reuse: a dead grant is not presented again", len(engine.refreshes()) == presented, engine.refreshes()[presented:])

        instance.log_in(ACCOUNT)
        arrives("a new login after it", instance)
        # Hydra has used the token up, and its answer is lost.
        before, repeats = len(engine.refreshes()), len(engine.repeats())
        engine.lose = 1
        lab.until(lambda: instance.ask(ACCOUNT) and len(engine.refreshes()) > before, pause=0.05)
        ended = lab.until(lambda: instance.ask(ACCOUNT)[1] == "login_required", seconds=30, pause=0.1)
        after = engine.refreshes()[before:]
        figure(f"an answer that was lost: then {[(seen.status, seen.error) for seen in after]}")
        check("a lost answer: one careful try, then login_required", ended and len(after) == 2
              and after[1].status != 200 and after[0].token == after[1].token, after)
        check("a lost answer: nothing else was presented twice", len(engine.repeats()) == repeats + 1, engine.repeats())
        instance.log_in(ACCOUNT)
        arrives("a new login after that", instance)
    at_once(engine, own, port, config)


def at_once(engine, own, port, config):
    """What Hydra says of one token that is presented many times at once, which is what locks are for."""
    with lab.Instance(own, config) as instance:
        arrives("before it", instance)
        token = engine.newest()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: engine.token({"grant_type": "refresh_token", "refresh_token": token}), range(8)))
        kinds = collections.Counter((status, answer.get("error"), answer.get("error_description", "")[-WORDS_TOLD:])
                                    for status, answer in found)
        for (status, error, words), count in kinds.items():
            figure(f"one refresh token eight times at once: {count} × {status} {error}: {words}")
        # With SQLite, more than one may be served; then the chain is dead all the same.
        known = {(200, None), (400, "invalid_grant"), (400, "invalid_request"), (401, "token_inactive")}
        check("at once: what Hydra says is what sidekey knows", {(status, error) for status, error, _ in kinds} <= known, kinds)
        concurrent_ones = [words for _, error, words in kinds if error == "invalid_request"]
        check("at once: and so are its words for it", all(any(known in words for known in CONCURRENT) for words in concurrent_ones), concurrent_ones)


def refused_logins(engine, own, port, redirect):
    """What Hydra sends back in place of a code."""
    config = lab.configuration(engine, redirect=redirect, admin=port, store=lab.file_store(own))
    with lab.Instance(own, config) as instance:
        def begun():
            person = Person()
            page = person.open(f"{instance.admin}/connect/neon?account=bob")
            return person, person.submit(page, token=lab.ADMIN_TOKEN)

        person, page = begun()
        page = person.submit(page, login="bob", password="any")
        page = person.submit(page, said="no")
        check("no consent: the page tells", page.status == 400 and "access was not granted" in page.text, page)
        check("no consent: 503 login_required", instance.ask("bob")[1] == "login_required", instance.ask("bob"))
        # Hydra sends no `iss` with its code (RFC 9207), and its metadata does not say that it does.
        person, page = begun()
        back = person.log_in(page, "bob", until=redirect).url
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(back).query))
        figure(f"its redirect has {sorted(query)}")
        check("Hydra's redirect: a code, the state, no iss", {"code", "state"} <= set(query) and "iss" not in query,
              sorted(query))
        page = person.open(back)
        check("and the login goes on", "It worked" in page.text, page)
        page = person.open(back)
        check("a code that comes twice is not presented twice", page.status == 400
              and sum(seen.grant == "authorization_code" and seen.status != 200 for seen in engine.seen) == 0, page)
    wrong = own / "wrong"
    wrong.mkdir()
    config = lab.configuration(engine, redirect=redirect, admin=port, store=lab.file_store(wrong)).replace(
        f'client_secret = {{ value = "{engine.clients["post"]["client_secret"]}" }}', 'client_secret = { value = "wrong" }')
    with lab.Instance(wrong, config) as instance:
        page = instance.log_in(ACCOUNT)
        check("a wrong client secret: the page tells, in Hydra's words for invalid_client", page.status >= 400
              and "It worked" not in page.text, page)
        check("a wrong client secret: nobody is logged in", instance.ask(ACCOUNT)[1] == "login_required", instance.ask(ACCOUNT))
        shown = json.dumps(page.text)
        figure(f"a wrong client secret: {page.status} {shown[:300]}")
