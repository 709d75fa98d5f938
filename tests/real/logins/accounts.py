"""Many accounts behind one route."""

import concurrent.futures
import random
import threading
import time

from support import check, figure, number
from . import lab

ACCOUNTS = number("ACCOUNTS", 100)
SECONDS = number("ACCOUNT_SECONDS", 15)
CALLERS = 16


def suite_accounts(directory, tools):
    """A hundred accounts raced at once: each answer names its own."""
    port = lab.free_port()
    redirect = f"http://127.0.0.1:{port}/callback"
    names = [f"account-{n}" for n in range(ACCOUNTS)]
    # Two seconds: half a hundred refreshes a second are enough for one machine that does everything.
    with lab.Server(tools, [redirect], access_ttl=2) as server:
        config = lab.configuration(server, redirect=redirect, admin=port, store=lab.file_store(directory))
        with lab.Instance(directory, config) as instance:
            with concurrent.futures.ThreadPoolExecutor(4) as pool:
                pages = list(pool.map(instance.log_in, names))
            bad = [page for page in pages if "It worked" not in page.text]
            check(f"{ACCOUNTS} accounts log in", not bad, "; ".join(map(str, bad[:3])))
            found = instance.ask("nobody")
            check("an account without a login gets nothing", found == (503, "login_required", None), found)
            found = instance.ask()
            check("no account gets nothing either", found[0] != 200, found)

            counts, wrong, lock = {}, [], threading.Lock()
            deadline = time.monotonic() + SECONDS

            def race():
                caller = lab.Caller(instance.addresses[0])
                while time.monotonic() < deadline:
                    name = random.choice(names)
                    status, code, arrived = caller.ask(name)
                    with lock:
                        counts[status, code] = counts.get((status, code), 0) + 1
                        if arrived not in (name, None):
                            wrong.append((name, arrived))
                caller.close()

            with concurrent.futures.ThreadPoolExecutor(CALLERS) as pool:
                for done in [pool.submit(race) for _ in range(CALLERS)]:
                    done.result()
            stats = server.stats()
            figure(f"{sum(counts.values())} requests in {SECONDS} s on {CALLERS} connections: {counts}; "
                   f"{stats['used']} refreshes; the API refused {stats['api']['refused']}")
            check("no request arrives as another account", not wrong, wrong[:5])
            check("every request is served", set(counts) == {(200, None)}, counts)
            check("tokens were refreshed meanwhile", stats["used"] >= ACCOUNTS, stats["used"])
            check("no refresh token is presented twice", not stats["repeats"], stats["repeats"][:3])
            check("no refresh is refused", not stats["errors"], stats["errors"])


SUITES = {"accounts": suite_accounts}
