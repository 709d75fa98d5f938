"""A login in a real browser."""

import json
import os
import pathlib
import subprocess

from support import adopt, check, command, figure
from . import lab

LOOKS = ["desktop-light", "desktop-dark", "phone-light", "phone-dark"]


def suite_browser(directory, tools):
    """Headless Chromium, from the admin page to the one that says that it worked; light, dark, desktop, phone."""
    port = lab.free_port()
    redirect = f"http://127.0.0.1:{port}/callback"
    shots = pathlib.Path(os.environ.get("SHOTS", directory / "shots")).resolve()
    shots.mkdir(parents=True, exist_ok=True)
    # By another name than sidekey's, it is another site: the browser returns across sites, as it does in earnest.
    with lab.Server(tools, [redirect], host="localhost", access_ttl=1) as server:
        config = lab.configuration(server, redirect=redirect, admin=port, store=lab.file_store(directory))
        with lab.Instance(directory, config) as instance:
            told = {"admin": instance.admin, "token": lab.ADMIN_TOKEN, "redirect": redirect, "chromium": tools.chromium,
                    "shots": str(shots), "other_site": f"{server.api.replace('127.0.0.1', 'localhost')}/other-site?target="}
            ran = command("node", tools.node / "browser.mjs", json.dumps(told), stdout=subprocess.PIPE, timeout=300)
            adopt(ran.stdout)
            check("the browser gets to the end", ran.returncode == 0, f"exit status {ran.returncode}")
            for look in [*LOOKS, "mischief"]:
                found = lab.until(lambda: instance.ask(look) == (200, None, look), seconds=5) or instance.ask(look)
                check(f"browser: afterwards a request arrives as {look}", found is True, found)
            for account in ["cancelled", "forged"]:
                found = instance.ask(account)
                check(f"browser: but not as {account}", found == (503, "login_required", None), found)
    figure(f"{len(list(shots.glob('*.png')))} screenshots in {shots}")


SUITES = {"browser": suite_browser}
