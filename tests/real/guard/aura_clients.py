"""Clients that insist on fetching a token: they are given sidekey's base URL, and nothing else of them is changed."""

import base64
import json
import pathlib
import shutil
import subprocess
import urllib.error
import urllib.request

from support import Sidekey, Standins, adopt, check, command, debian

PEERS = pathlib.Path(__file__).with_name("peers")
# Those of Aura's own API, and libraries that such clients are made with.
PYTHON_CLIENTS = ["neo4j-aura-sdk==0.1.5", "aura-python-sdk==0.1.5", "aura-cli==0.7.0", "requests-oauthlib==2.0.0",
                  "authlib==1.9.10"]
# With signs that are written in another way in a form.
CALLER_TOKEN = "ci+token/%41=&0123456789"
KINDS = [("python", 8), ("node", 5)]


def configuration(standins, callers=""):
    return f"""
[server]
listen = "127.0.0.1:0"
[route.aura]
provider = "aura"
path = "/aura"
upstream = "{standins.urls['aura']}"
[route.aura.credential]
type = "aura"
token_url = "{standins.urls['aura']}/oauth/token"
client_id = "client-1"
client_secret = {{ value = "secret-1" }}
{callers}"""


def suite_aura_clients(directory, tools):
    """Clients of Aura that fetch their own token, with and without callers."""
    programs = {"python": python_clients(tools), "node": node_clients(directory)}

    def run(wanted, sidekey, client_id, secret):
        for kind, count in KINDS:
            arguments = [wanted, f"{sidekey.url}/aura", client_id, secret]
            ran = command(*programs[kind], *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            adopt(ran.stdout)
            told = sum(line.startswith(("ok      ", "FAILED  ")) for line in ran.stdout.splitlines())
            check(f"{kind}: every client had its turn", (ran.returncode, told) == (0, count), ran.stdout[-3000:])

    def only_sidekey_asked(standins):
        stats = standins.stats()["aura"]
        check("nobody but sidekey asked Aura for a token, and no request was refused",
              (stats["token_requests"], stats["refusals"]) == (1, 0), stats)

    with Standins() as standins:
        with Sidekey(directory, configuration(standins)) as sidekey:
            run("works", sidekey, "any id", "any secret")
        only_sidekey_asked(standins)
    callers = f"""
[caller.ci]
token = {{ value = "{CALLER_TOKEN}" }}
[caller.other]
token = {{ value = "other-token-0123456789" }}
"""
    with Standins() as standins:
        with Sidekey(directory, configuration(standins, callers)) as sidekey:
            run("works", sidekey, "ci", CALLER_TOKEN)
            before = standins.stats()["aura"]["api_requests"]
            run("refused", sidekey, "ci", "other-token-0123456789")
            check("nothing of what was refused reached Aura", standins.stats()["aura"]["api_requests"] == before)
        only_sidekey_asked(standins)
        processes(directory, configuration(standins, callers))


def processes(directory, config):
    """A local token is good for every process with the same configuration, and after all of them have ended."""
    folders = [pathlib.Path(directory) / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    with Sidekey(folders[0], config) as one, Sidekey(folders[1], config) as other:
        tokens = [fetch(one), fetch(other)]
        check("each of two processes takes the other's token", (use(other, tokens[0]), use(one, tokens[1])) == (200, 200))
    with Sidekey(folders[0], config) as again:
        check("and so does one that was started later", [use(again, token) for token in tokens] == [200, 200])
    with Sidekey(folders[1], config.replace(CALLER_TOKEN, CALLER_TOKEN[::-1])) as changed:
        check("but not when the caller's token is another", [use(changed, token) for token in tokens] == [401, 401])


def fetch(sidekey):
    basic = base64.b64encode(f"ci:{CALLER_TOKEN}".encode()).decode()
    request = urllib.request.Request(f"{sidekey.url}/aura/oauth/token", b"grant_type=client_credentials",
                                     {"Authorization": f"Basic {basic}"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["access_token"]


def use(sidekey, token):
    request = urllib.request.Request(f"{sidekey.url}/aura/v1/instances", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def python_clients(tools):
    command(tools.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PYTHON_CLIENTS, check=True)
    return [tools.python, PEERS / "aura_sdks.py"]


def node_clients(directory):
    if not (shutil.which("node") and shutil.which("npm")):
        debian("nodejs", "npm")
    folder = pathlib.Path(directory) / "node"
    folder.mkdir()
    for file in ["package.json", "oauth_clients.mjs"]:
        shutil.copy(PEERS / file, folder)
    words = ["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error", "--prefix", folder]
    command("npm", *words, check=True, stdout=subprocess.DEVNULL)
    return ["node", folder / "oauth_clients.mjs"]


SUITES = {"aura-clients": suite_aura_clients}
