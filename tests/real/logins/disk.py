"""A store's disk that is full, and one that is read-only."""

import contextlib
import json
import os
import subprocess
import urllib.request

from support import check, figure
from . import lab

SIZE = 256 << 10
# A refusal costs a pause; this is longer than any of them gets here.
PATIENCE = 40


def suite_disk(directory, tools):
    """A file system of its own for the store: full, then read-only. What was on it stays, and what came meanwhile is kept."""
    volume = directory / "volume"
    volume.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "tmpfs", volume]
    mounted = subprocess.run(words, stderr=subprocess.PIPE, text=True)
    if mounted.returncode:
        figure(f"skipped, as this user may not mount: {mounted.stderr.strip()}")
        return
    try:
        faults(directory, volume, tools)
    finally:
        subprocess.run(["umount", volume], check=True)


def faults(directory, volume, tools):
    port = lab.free_port()
    redirect = f"http://127.0.0.1:{port}/callback"
    store = f'type = "file"\npath = "{volume}/store"'
    with lab.Server(tools, [redirect], access_ttl=1) as server:
        config = lab.configuration(server, redirect=redirect, admin=port, store=store, extra='fetch_timeout = "2s"')
        with lab.Instance(directory, config) as instance:
            for account in ["alice", "carol"]:
                page = instance.log_in(account)
                check(f"{account} logs in", "It worked" in page.text, page)
            serves(instance, "alice")

            with filled(volume):
                told = lab.until(lambda: status(instance)["store"]["error"], PATIENCE)
                check("a full disk is told of", told and "space" in told.lower(), told)
                check("and makes the instance degraded", status(instance)["readiness"] == "degraded", status(instance))
                used = server.stats()["used"]
                starved = lab.until(lambda: instance.ask("alice")[0] == 503, PATIENCE)
                code = instance.ask("alice")[1]
                check("nothing is presented that cannot be written down", starved and code == "credential_unavailable", code)
                check("not even once", server.stats()["used"] == used, server.stats()["used"] - used)
                page = instance.log_in("bob")
                check("a login on a full disk says so", "saved" in page.text or "store" in page.text, page)
                serves(instance, "bob")
            serves(instance, "alice")
            saved = lab.until(lambda: status(instance)["store"]["unsaved"] == 0, PATIENCE)
            check("what came meanwhile is saved", saved, status(instance)["store"])

            subprocess.run(["mount", "-o", "remount,ro", volume], check=True)
            told = lab.until(lambda: status(instance)["store"]["error"], PATIENCE)
            check("a read-only disk is told of", told and "read-only" in told.lower(), told)
            subprocess.run(["mount", "-o", "remount,rw", volume], check=True)
            serves(instance, "alice")
        with lab.Instance(directory, config) as instance:
            for account in ["alice", "bob", "carol"]:
                before = server.account(account)["generations"]
                refreshed = lab.until(lambda: server.account(account)["generations"] > before, PATIENCE)
                check(f"the grant of {account} still refreshes", refreshed, server.account(account))
                serves(instance, account)
            counts = server.stats()
            figure(f"{counts['used']} refreshes, {len(counts['repeats'])} presented twice")
            check("no refresh token is presented twice", not counts["repeats"], counts["repeats"][:3])


def serves(instance, account):
    served = lab.until(lambda: instance.ask(account) == (200, None, account), PATIENCE)
    check(f"{account} is served", served, instance.ask(account))


def status(instance):
    with urllib.request.urlopen(f"{instance.admin}/status", timeout=10) as answer:
        return json.load(answer)


@contextlib.contextmanager
def filled(volume):
    """The disk, full to its last byte."""
    filler = volume / "filler"
    with filler.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(os.urandom(4096))
    try:
        yield
    finally:
        filler.unlink()


SUITES = {"disk": suite_disk}
