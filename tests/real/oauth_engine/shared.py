"""Two processes on one store: Hydra's reuse detection sees nothing of it."""

import contextlib
import time

from support import check, figure, number
from logins import lab, replicas

SECONDS = number("ENGINE_SECONDS", 12)
ACCOUNT = "alice"


def checks(engine, tools, directory, redirect):
    directory.mkdir()
    with_store(engine, directory, redirect, "file", lab.file_store(directory))
    with replicas.Redis(directory, tools) as redis:
        with_store(engine, directory, redirect, "redis", f"""type = "redis"
url = "redis://127.0.0.1:{redis.port}"
password = {{ value = "{replicas.REDIS_PASSWORD}" }}
encryption_key = {{ value = "{lab.ENCRYPTION_KEY}" }}""")


def with_store(engine, directory, redirect, name, store):
    def config(number):
        return lab.configuration(engine, redirect=redirect, store=store, extra=f'params = {{ replica = "{number}" }}')

    with contextlib.ExitStack() as running:
        instances = [running.enter_context(lab.Instance(directory / f"{name}-{number}", config(number), quiet=True))
                     for number in range(2)]
        status, login, _ = lab.log_in_by_command(instances[0].file, ACCOUNT)
        check(f"two on one {name} store: a login", status == 0, login.errors)
        served = [lab.until(lambda: instance.ask(ACCOUNT) == (200, None, ACCOUNT), pause=0.1) for instance in instances]
        check(f"two on one {name} store: both serve", all(served), served)
        before, errors, repeats = len(engine.refreshes()), len(engine.errors()), dict(engine.repeats())
        # Slow enough that both would be at it, if they were not kept apart.
        engine.delay = 0.3
        requests = [lab.Requests(instance.addresses[0], ACCOUNT, pause=0.05) for instance in instances for _ in range(2)]
        time.sleep(SECONDS)
        for one in requests:
            one.end()
        engine.delay = 0
        fresh = engine.refreshes()[before:]
        shares = {seen.replica: sum(other.replica == seen.replica for other in fresh) for seen in fresh}
        figure(f"two on one {name} store: {len(fresh)} refreshes in {SECONDS} s, by process {shares}; "
               f"{sum(one.served for one in requests)} requests")
        check(f"two on one {name} store: no token is presented twice", engine.repeats() == repeats, engine.repeats())
        check(f"two on one {name} store: Hydra refuses none", engine.errors()[errors:] == [], engine.errors()[errors:])
        check(f"two on one {name} store: no request fails", not any(one.others or one.broken for one in requests),
              [(one.others, one.broken) for one in requests])
        check(f"two on one {name} store: one refresh for both", 2 <= len(fresh) <= 2 * SECONDS / engine.ttl + 2, len(fresh))
