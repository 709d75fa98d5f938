"""Eight processes on one store: a refresh token is never presented twice."""

import contextlib
import random
import signal
import subprocess
import threading
import time

from support import Process, check, figure, number, say
from . import lab

REPLICAS = 8
ACCOUNT = "alice"
SECONDS = number("REPLICA_SECONDS", 20)
STOPS = number("STOPS", 6)
RESTARTS = number("RESTARTS", 4)
REDIS_PASSWORD = "redis-password"
# Twice the time that one fetch may take is what a lock lasts.
FETCH_TIMEOUT = 1
LOCK = 2 * FETCH_TIMEOUT
# From the answer's leaving the server to the new grant's being in the store, in milliseconds.
WRITE_DOWN = 50


def suite_replicas_file(directory, tools):
    """Eight processes on one directory; some stopped for longer than a lock lasts."""
    with fleet(directory, tools, lab.file_store(directory)) as room:
        steady(room)
        logout_everywhere(room)
        stopped(room)


def suite_replicas_redis(directory, tools):
    """Eight processes on one Redis; some stopped, and Redis restarted."""
    with Redis(directory, tools) as redis:
        store = f"""type = "redis"
url = "redis://127.0.0.1:{redis.port}"
password = {{ value = "{REDIS_PASSWORD}" }}
encryption_key = {{ value = "{lab.ENCRYPTION_KEY}" }}"""
        with fleet(directory, tools, store) as room:
            steady(room)
            logout_everywhere(room)
            stopped(room)
            restarted(room, redis)
            begun_without_it(room, redis, directory)


class Redis:
    """A redis-server that loses nothing it has confirmed."""

    def __init__(self, directory, tools):
        self.program, self.directory, self.port = tools.redis, directory / "redis", lab.free_port()
        self.directory.mkdir()

    def __enter__(self):
        self.start()
        return self

    def start(self):
        words = ["--port", self.port, "--bind", "127.0.0.1", "--dir", self.directory, "--requirepass", REDIS_PASSWORD,
                 "--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        self.process = Process(self.program, *words, stdout=subprocess.PIPE)
        for line in self.process.child.stdout:
            if "eady to accept connections" in line:
                break
        else:
            raise RuntimeError("redis-server does not start")
        threading.Thread(target=self.process.child.stdout.read, daemon=True).start()

    def end(self, kill):
        child = self.process.child
        child.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        child.wait(20)

    def __exit__(self, *_):
        self.process.__exit__()


class Room:
    """The server and the processes."""

    def __init__(self, server, config, instances):
        self.server, self.config, self.instances = server, config, instances
        self.known_repeats = 0
        # Tokens whose second time was looked at.
        self.excused = set()
        # When somebody could not read or write, in milliseconds: [(replica or None for all, from, to)].
        self.gaps = []

    def log_in(self):
        status, login, _ = lab.log_in_by_command(self.instances[0].file, ACCOUNT)
        if status != 0:
            raise RuntimeError(f"cannot log in: {login.output}{login.errors}")
        return self.all_serve()

    def all_serve(self):
        """Waits until every process serves the account; those that do not."""
        waiting = {}
        for number, instance in enumerate(self.instances):
            if not lab.until(lambda: instance.ask(ACCOUNT) == (200, None, ACCOUNT), seconds=30, pause=0.1):
                waiting[number] = instance.ask(ACCOUNT)
        return waiting

    @contextlib.contextmanager
    def asked(self):
        """Every process is asked constantly, meanwhile."""
        found = [lab.Requests(instance.addresses[0], ACCOUNT) for instance in self.instances]
        try:
            yield found
        finally:
            for requests in found:
                requests.ending.set()
            for requests in found:
                requests.join()

    def new_repeats(self):
        """What was presented twice since this was last asked."""
        found = self.server.stats()["repeats"]
        new, self.known_repeats = found[self.known_repeats:], len(found)
        return new

    def explanation(self, repeat):
        """Why a token had to be presented again: whoever did it first could not read or keep the answer."""
        first = repeat["first"]
        if first["token"] in self.excused:
            # The second time told everybody that it is dead.
            return None
        self.excused.add(first["token"])
        ended = (first["answered"] or first["at"] + 1000 * FETCH_TIMEOUT) + WRITE_DOWN
        if first["gone"]:
            return "answered to a dead connection"
        for replica, began, over in self.gaps:
            if began <= ended and first["at"] <= over and replica in (None, first["replica"]):
                return "the store was away" if replica is None else "its process was stopped meanwhile"
        return None


@contextlib.contextmanager
def fleet(directory, tools, store):
    """Eight processes on a store, logged in."""
    redirect = f"http://127.0.0.1:{lab.free_port()}/callback"
    with lab.Server(tools, [redirect], access_ttl=1) as server, contextlib.ExitStack() as running:
        def config(number):
            extra = f'fetch_timeout = "{FETCH_TIMEOUT}s"\nparams = {{ replica = "{number}" }}'
            return lab.configuration(server, redirect=redirect, store=store, extra=extra)

        instances = [running.enter_context(lab.Instance(directory / f"replica-{number}", config(number)))
                     for number in range(REPLICAS)]
        room = Room(server, config, instances)
        waiting = room.log_in()
        check("a login reaches every process", not waiting, waiting)
        yield room


def steady(room):
    """Nothing goes wrong."""
    before = room.server.stats()
    with room.asked() as asked:
        time.sleep(SECONDS)
    stats = room.server.stats()
    refreshes = stats["used"] - before["used"]
    figure(f"{sum(requests.served for requests in asked)} requests to {REPLICAS} processes in {SECONDS} s, "
           f"{refreshes} refreshes; the API refused {stats['api']['refused']}")
    check("steady: no refresh token is presented twice", not room.new_repeats(), stats["repeats"])
    check("steady: no refresh is refused", not stats["errors"], stats["errors"])
    check("steady: every process serves", all(requests.served for requests in asked), [r.served for r in asked])
    others = [requests.others for requests in asked if requests.others or requests.broken]
    check("steady: no request fails", not others, others)
    check("steady: one token for all, refreshed once a second",
          SECONDS * 0.5 <= refreshes <= SECONDS / 0.6 + 2, refreshes)


def logout_everywhere(room):
    """One command tells all."""
    with lab.Command("logout", "neon", "--account", ACCOUNT, "-c", room.instances[0].file) as logout:
        status = logout.finish()
    check("logout ends well", status == 0, f"{status}: {logout.output}{logout.errors}")
    check("logout revokes", not room.server.account(ACCOUNT)["alive"], room.server.account(ACCOUNT))
    required = (503, "login_required", None)
    heard = [lab.until(lambda: instance.ask(ACCOUNT) == required, pause=0.1) for instance in room.instances]
    check("logout reaches every process", all(heard), heard)
    waiting = room.log_in()
    check("and so does the login after it", not waiting, waiting)
    check("logout and login: no refresh token is presented twice", not room.new_repeats(), room.server.stats())


def stopped(room):
    """A process stops for longer than its lock lasts, most often while it refreshes, and then goes on."""
    # For five seconds after a refusal that no new token could cure, as at the logout before this, a process passes the
    # API's own 401 and does not ask for another token (README, "Tokens").
    time.sleep(5.5)
    # The answer takes a while, so that a process can be stopped in the middle.
    room.server.set(after=[0, 60])
    told = Told(room)
    for round_number in range(STOPS):
        with room.asked() as asked:
            number = (random.randrange(REPLICAS) if round_number % 2 else refresher(room))
            child = room.instances[number].child
            began = time.time() * 1000
            child.send_signal(signal.SIGSTOP)
            time.sleep(random.uniform(LOCK + 0.5, LOCK + 2))
            child.send_signal(signal.SIGCONT)
            room.gaps.append((str(number), began, time.time() * 1000))
            # What it does after waking is what may go wrong.
            time.sleep(1.5)
        told.after(asked, f"stop {round_number}", without=number)
    room.server.set(after=[0, 0])
    told.sum("stopped", STOPS)


def refresher(room):
    """Who has just come to refresh: it is at it now. The server knows once it has dealt with it."""
    stats = room.server.stats()
    room.server.set(after=[150, 150])
    room.server.next(stats["arrivals"], seconds=5)
    number = lab.until(lambda: next((record["replica"] for record in
                                     room.server.account(ACCOUNT)["presentations"][-1:]
                                     if record["answered"] is None and not record["gone"]), None),
                       seconds=5, pause=0.005)
    room.server.set(after=[0, 60])
    return int(number) if number is not None else random.randrange(REPLICAS)


def restarted(room, redis):
    """Redis goes away and comes back, by a signal or by the axe."""
    told = Told(room)
    for round_number in range(RESTARTS):
        with room.asked() as asked:
            time.sleep(random.uniform(0, 1))
            began = time.time() * 1000
            redis.end(kill=round_number % 2 == 0)
            time.sleep(random.uniform(0, 2))
            redis.start()
            # A write may be tried again for a while after.
            room.gaps.append((None, began, time.time() * 1000 + 1000))
            time.sleep(2)
        told.after(asked, f"restart {round_number}", strict=False)
    told.sum("Redis restarted", RESTARTS)


def begun_without_it(room, redis, directory):
    """A process starts while Redis is away: it cannot know who has logged in, and must not say that nobody has."""
    redis.end(kill=False)
    with lab.Instance(directory / "replica-late", room.config(REPLICAS)) as instance:
        answer = instance.ask(ACCOUNT)
        check("Redis away at the start: nothing is served", answer[0] == 503, answer)
        check("Redis away at the start: nobody is asked to log in", answer[1] != "login_required", answer)
        redis.start()
        served = lab.until(lambda: instance.ask(ACCOUNT) == (200, None, ACCOUNT), pause=0.1)
        check("Redis comes: it serves without a login", served, instance.ask(ACCOUNT))
    waiting = room.all_serve()
    check("and so do the others", not waiting, waiting)
    check("Redis away at the start: nothing is presented twice", not room.new_repeats(), room.server.stats()["repeats"][-2:])


class Told:
    """Judges rounds, and sums up."""

    def __init__(self, room):
        self.room, self.explained, self.unexplained, self.losses, self.failures = room, {}, [], 0, {}
        self.bad_rounds = []

    def after(self, asked, name, without=None, strict=True):
        """One round: everything serves after it, after a new login if the grant was lost."""
        repeats = self.room.new_repeats()
        for repeat in repeats:
            if why := self.room.explanation(repeat):
                self.explained[why] = self.explained.get(why, 0) + 1
            else:
                self.unexplained.append(repeat)
        lost = not self.room.server.account(ACCOUNT)["alive"]
        if lost:
            self.losses += 1
            last = self.room.server.account(ACCOUNT)["presentations"][-3:]
            if not repeats:
                self.bad_rounds.append(f"{name}: the grant is gone though nothing was presented twice: {last}")
            waiting = self.room.log_in()
        else:
            waiting = self.room.all_serve()
        if waiting:
            self.bad_rounds.append(f"{name}: do not serve after it: {waiting}")
        for number, requests in enumerate(asked):
            for answer, count in requests.others.items():
                self.failures[answer] = self.failures.get(answer, 0) + count
            if strict and not lost and number != without and requests.others:
                self.bad_rounds.append(f"{name}: replica {number} answered {requests.others}")

    def sum(self, what, rounds):
        figure(f"{what} {rounds} times: presented twice {sum(self.explained.values()) + len(self.unexplained)}, "
               f"{self.explained or 'so nothing to explain'}; new logins needed {self.losses}; "
               f"answers that were not 200: {self.failures or 'none'}")
        for round_ in self.bad_rounds:
            say(f"        {round_}")
        check(f"{what}: whatever was presented twice had to be", not self.unexplained, self.unexplained)
        check(f"{what}: every process serves, meanwhile and after", not self.bad_rounds, f"{len(self.bad_rounds)} rounds")


SUITES = {"replicas-file": suite_replicas_file, "replicas-redis": suite_replicas_redis}
