"""kill -9 around refreshes: no grant is lost that can be kept."""

import random
import threading
import time

from support import check, figure, number
from . import lab

KILLS = number("KILLS", 60)
LANES = 3
# How long the server takes between using a token up and answering, in milliseconds: the window is not empty.
ANSWER_DELAY = [0, 40]
# From the answer's leaving the server to the new grant's being on disk, in milliseconds.
WRITE_DOWN = 50
# Two processes read the same clock, in milliseconds and rounded.
ROUNDING = 2
# A grant is lost when every answer for so long says so, in seconds.
SURE = 1.5


def suite_kill9(directory, tools):
    """sidekey is killed again and again, most often while it refreshes."""
    lanes = [Lane(directory / f"lane-{number}", tools, KILLS // LANES + (number < KILLS % LANES))
             for number in range(LANES)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    for lane in lanes:
        check(f"{lane.directory.name} runs to its end", lane.error is None, lane.error)
    total = {name: sum(lane.counts[name] for lane in lanes) for name in lanes[0].counts}
    figure(f"{total['kills']} kills, {total['met']} of them while the server dealt with a refresh")
    figure(f"{total['kept']} grants kept; lost because the answer went to a dead connection: {total['dead_connection']}; "
           f"lost while the answer was written down: {total['writing_down']}")
    late = [milliseconds for lane in lanes for milliseconds in lane.late]
    figure(f"of the latter, killed after the answer by at most {max(late, default=0)} ms: {sorted(late)}; "
           f"{sum(lane.beside for lane in lanes)} of them left the new grant in a file beside the old one")
    check(f"{KILLS} kills", total["kills"] == KILLS, total)
    check("every grant is kept, or lost where the protocol leaves no way",
          total["kept"] + total["dead_connection"] + total["writing_down"] == KILLS, total)
    premature = [answers for lane in lanes for answers in lane.premature]
    check("no restart asks for a login that is not needed", not premature, f"{len(premature)} times: {premature[:3]}")
    unexplained = [loss for lane in lanes for loss in lane.unexplained]
    check("no other loss", not unexplained, unexplained)
    check("kills met refreshes", total["met"] >= KILLS // 10, total)
    check("and most grants are kept all the same", total["kept"] > KILLS // 2, total)
    panics = [lane.directory.name for lane in lanes if lane.panicked]
    check("nothing in sidekey panicked", not panics, panics)


class Lane(threading.Thread):
    """One server, one store, one sidekey at a time."""

    def __init__(self, directory, tools, kills):
        super().__init__(daemon=True)
        self.directory, self.tools, self.kills = directory, tools, kills
        self.account = directory.name
        self.counts = {"kills": 0, "met": 0, "kept": 0, "dead_connection": 0, "writing_down": 0}
        self.unexplained, self.late, self.error, self.panicked = [], [], None, False
        self.premature, self.beside, self.left = [], 0, False
        tools.node  # installed once, not by every lane

    def run(self):
        try:
            self.directory.mkdir()
            port = lab.free_port()
            redirect = f"http://127.0.0.1:{port}/callback"
            with lab.Server(self.tools, [redirect], quiet=True, access_ttl=1) as server:
                server.set(after=ANSWER_DELAY)
                self.server = server
                self.config = lab.configuration(server, redirect=redirect, admin=port,
                                                store=lab.file_store(self.directory), extra='fetch_timeout = "2s"')
                self.rounds()
        except Exception as error:  # told by the suite
            self.error = f"{type(error).__name__}: {error}"

    def instance(self):
        return lab.Instance(self.directory, self.config, quiet=True)

    def rounds(self):
        instance = self.instance()
        try:
            self.log_in(instance)
            for _ in range(self.kills):
                killed = self.kill(instance)
                self.left = any((self.directory / "store").glob("*.tmp"))
                instance = self.instance()
                self.judge(instance, killed)
        finally:
            self.panicked = "panicked" in instance.said()
            instance.crash()

    def log_in(self, instance):
        page = instance.log_in(self.account)
        if "It worked" not in page.text:
            raise RuntimeError(f"cannot log in: {page}")
        if not lab.until(lambda: instance.ask(self.account)[0] == 200):
            raise RuntimeError(f"not served after a login: {instance.ask(self.account)}")

    def kill(self, instance):
        """Kills it at a random moment, in milliseconds of the clock that the server has too."""
        requests = lab.Requests(instance.addresses[0], self.account)
        if random.random() < 0.75:
            arrivals = self.server.stats()["arrivals"]
            self.server.next(arrivals, seconds=3)
            time.sleep(random.uniform(0, 1.5 * ANSWER_DELAY[1] / 1000))
        else:
            time.sleep(random.uniform(0, 1))
        before = time.time()
        instance.crash()
        requests.end()
        self.counts["kills"] += 1
        return before * 1000, time.time() * 1000

    def judge(self, instance, killed):
        """Does the grant still refresh? If not, had it a way to?"""
        known = self.server.account(self.account)
        last = known["presentations"][-1] if known["presentations"] else None
        began, ended = killed
        met = bool(last) and last["at"] - ROUNDING <= ended and (last["answered"] or ended) + ROUNDING >= began
        self.counts["met"] += met
        if self.refreshes(instance, known["generations"]):
            self.counts["kept"] += 1
            return
        answer = instance.ask(self.account)
        loss = self.name_loss(last, killed)
        if loss is None or answer[1] != "login_required":
            told = self.server.account(self.account)
            self.unexplained.append({"answer": answer, "killed": killed, "last": last, "since": told["presentations"][-2:]})
        else:
            self.counts[loss] += 1
        self.log_in(instance)

    def refreshes(self, instance, generations):
        """Waits for a refresh that works after the restart; false once a new login is required."""
        began, required = time.monotonic(), None
        while (now := time.monotonic()) - began < lab.RETRY_FOR:
            answer = instance.ask(self.account)
            if answer[1] == "login_required":
                required = required or now
                if now - required > SURE:
                    return False
            elif required:
                self.premature.append(f"login_required after {required - began:.3f} s, {answer[0]} after {now - began:.3f} s")
                required = None
            if answer[0] == 200 and self.server.account(self.account)["generations"] > generations:
                return True
            time.sleep(0.02)
        return False

    def name_loss(self, last, killed):
        """What made a loss unavoidable; none where nothing did. `last` is the last use of a token before the restart."""
        began, ended = killed
        if not last or last["outcome"] != "used" or last["at"] - ROUNDING > ended:
            return None
        if last["answered"] is None:
            return "dead_connection"
        late = began - last["answered"]
        if late <= WRITE_DOWN:
            self.late.append(round(late))
            self.beside += self.left
            return "writing_down"
        return None


SUITES = {"kill9": suite_kill9}
