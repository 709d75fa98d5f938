"""Python's clients that fetch a token themselves, none of them written here: WANTED BASE_URL CLIENT_ID CLIENT_SECRET.

WANTED is `works` or `refused`. Of each client, only what its own documentation offers is set: its base URL, and where it
has one its token URL. Prints a line for each check.
"""

import asyncio
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import aura_python_sdk
import neo4j_aura_sdk
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from oauthlib.oauth2 import BackendApplicationClient
from requests.auth import HTTPBasicAuth
from requests_oauthlib import OAuth2Session

wanted, base, client_id, client_secret = sys.argv[1:]
INSTANCES = ["Production", "Staging"]


async def of_neo4j_aura_sdk():
    """PyPI neo4j-aura-sdk: `base_url`."""
    async with neo4j_aura_sdk.AuraClient(client_id, client_secret, base_url=base) as client:
        tenants = (await client.tenants()).data
        one = (await client.instance("0a1b2c3d")).data
        names = [instance.name for instance in (await client.instances(tenants[0].id)).data]
        return names if one.name == names[0] else one


def of_aura_python_sdk():
    """PyPI aura-python-sdk: `base_url`, and `allow_insecure_base_url` for http."""
    with aura_python_sdk.AuraClient(client_id=client_id, client_secret=client_secret, base_url=base,
                                    allow_insecure_base_url=True) as client:
        names = [instance.name for instance in client.instances.list()]
        one = client.instances.get("4e5f6a7b")
        return names if one.name == names[1] else one


async def of_aura_python_sdk_async():
    """The same package's other half."""
    async with aura_python_sdk.AsyncAuraClient(client_id=client_id, client_secret=client_secret, base_url=base,
                                               allow_insecure_base_url=True) as client:
        return [instance.name for instance in await client.instances.list()]


def of_aura_cli():
    """PyPI aura-cli: two environment variables for its URLs, two for its credentials."""
    with tempfile.TemporaryDirectory() as home:
        # It keeps its token there, and does not make the directory itself.
        (pathlib.Path(home) / ".aura").mkdir()
        environment = {**os.environ, "HOME": home, "AURA_CLI_BASE_URL": f"{base}/v1",
                       "AURA_CLI_AUTH_URL": f"{base}/oauth/token", "AURA_CLI_CLIENT_ID": client_id,
                       "AURA_CLI_CLIENT_SECRET": client_secret}
        command = [pathlib.Path(sys.executable).with_name("aura"), "instances", "list"]
        for _ in range(2):  # the second time with the token that it kept
            ran = subprocess.run(command, env=environment, capture_output=True, text=True)
            if ran.returncode:
                raise RuntimeError(ran.stderr)
        answer = json.loads(ran.stdout)  # the content of `data`
        return [instance["name"] for instance in answer]


def listed(session):
    answer = session.get(f"{base}/v1/instances")
    answer.raise_for_status()
    return [instance["name"] for instance in answer.json()["data"]]


def of_requests_oauthlib(**how):
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # its switch for http
    session = OAuth2Session(client=BackendApplicationClient(client_id=client_id))
    session.fetch_token(token_url=f"{base}/oauth/token", **how)
    return listed(session)


def with_the_id_twice():
    """In Basic, and the id in the body as well."""
    return of_requests_oauthlib(auth=HTTPBasicAuth(client_id, client_secret), include_client_id=True)


def in_the_body():
    return of_requests_oauthlib(client_secret=client_secret, include_client_id=True)


def of_authlib(method):
    with AuthlibSession(client_id, client_secret, token_endpoint_auth_method=method) as session:
        session.fetch_token(f"{base}/oauth/token", grant_type="client_credentials")
        return listed(session)


def check(name, condition, found=""):
    print(("ok      " if condition else "FAILED  ") + name + ("" if condition else f": {found}"), flush=True)


def judge(name, call):
    try:
        found = call()
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    if wanted == "works":
        check(f"{name} fetches its own token and works", found == INSTANCES, found)
    else:
        # Each tells its user in its own way that the credentials are wrong.
        words = ["invalid_client", "InvalidClient", "401", "Authorization"]
        told = isinstance(found, str) and any(word in found for word in words)
        check(f"{name} is refused, and says why", told, found)


judge("neo4j-aura-sdk", lambda: asyncio.run(of_neo4j_aura_sdk()))
judge("aura-python-sdk", of_aura_python_sdk)
judge("aura-python-sdk (async)", lambda: asyncio.run(of_aura_python_sdk_async()))
judge("aura-cli", of_aura_cli)
judge("requests-oauthlib, the id twice", with_the_id_twice)
judge("requests-oauthlib, the secret in the body", in_the_body)
judge("authlib, Basic", lambda: of_authlib("client_secret_basic"))
judge("authlib, the secret in the body", lambda: of_authlib("client_secret_post"))
