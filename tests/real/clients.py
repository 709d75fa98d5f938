"""Python's HTTP clients, each over a sidekey at the URL given: URL TEMPORARY_DIRECTORY. Prints a line for each check."""

import asyncio
import hashlib
import pathlib
import sys

import aiohttp
import requests
import urllib3

base, temporary = sys.argv[1], pathlib.Path(sys.argv[2])
MIB = 1 << 20


def fnv(data):
    """The stand-ins' checksum."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def authorizations(echo):
    return [value for name, value in echo["headers"] if name == "authorization"]


def check(name, condition, found=""):
    print(("ok      " if condition else "FAILED  ") + name + ("" if condition else f": {found}"), flush=True)


def pieces(size, count):
    for number in range(count):
        yield bytes([number % 251]) * size


def with_requests():
    session = requests.Session()
    answer = session.get(f"{base}/aura/v1/instances", headers={"Authorization": "Bearer mine"})
    check("requests: GET", answer.status_code == 200 and answer.json()["data"], answer.text)
    answer = session.post(f"{base}/aura/v1/instances", json={"name": "new"})
    check("requests: POST of JSON", answer.status_code == 202 and answer.json()["data"]["name"] == "new", answer.text)
    answer = session.post(
        f"{base}/neo4j/db/neo4j/query/v2", json={"statement": "RETURN 1 AS n"}, auth=("someone", "else"))
    check("requests: a query with a user of its own", answer.json()["data"]["values"] == [[1]], answer.text)

    echo = session.post(f"{base}/neon/echo", data=pieces(1000, 50), headers={"X-Twice": "a"}).json()
    whole = b"".join(pieces(1000, 50))
    check("requests: a chunked upload arrives whole",
          (echo["body_bytes"], echo["checksum"]) == (len(whole), fnv(whole)), echo)
    check("requests: it carries sidekey's credential and no other",
          authorizations(echo) == ["Bearer neon-key"], echo)
    large = temporary / "large"
    large.write_bytes(b"x" * (8 * MIB))
    with large.open("rb") as file:
        got = session.put(f"{base}/neon/sink", data=file).json()
    check("requests: an upload of a file", got == {"bytes": 8 * MIB}, got)
    got = session.post(f"{base}/neon/sink", data=pieces(MIB, 32)).json()
    check("requests: a streamed upload of 32 MiB", got == {"bytes": 32 * MIB}, got)
    length, sum_ = 0, hashlib.sha256()
    with session.get(f"{base}/neon/bytes/{32 * MIB}", stream=True) as answer:
        direct = answer.headers.get("content-length")
        for piece in answer.iter_content(65536):
            length += len(piece)
            sum_.update(piece)
    check("requests: a streamed download of 32 MiB", (direct, length) == (str(32 * MIB), 32 * MIB), length)
    try:
        session.get(f"{base}/neon/cut/{MIB}").content
        check("requests: an answer that breaks off upstream breaks off here", False, "it seems whole")
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ConnectionError):
        check("requests: an answer that breaks off upstream breaks off here", True)
    pools = session.adapters["http://"].poolmanager.pools
    pool = pools[next(iter(pools.keys()))]
    check("requests: the connection is kept alive", pool.num_connections <= 2 and pool.num_requests >= 8,
          (pool.num_connections, pool.num_requests))
    check("requests: HEAD", session.head(f"{base}/neon/bytes/5").headers["content-length"] == "5")
    check("requests: an upstream's error passes", session.get(f"{base}/neon/status/418").status_code == 418)
    check("requests: no cookie comes back", not session.cookies, session.cookies)


def with_urllib3():
    pool = urllib3.PoolManager()
    answer = pool.request("GET", f"{base}/neon/projects")
    check("urllib3: GET", answer.status == 200 and answer.json()["projects"], answer.data)
    answer = pool.request("POST", f"{base}/neon/sink", body=pieces(MIB, 4), chunked=True)
    check("urllib3: a chunked upload", answer.json() == {"bytes": 4 * MIB}, answer.data)
    answer = pool.request("GET", f"{base}/neon/bytes/{4 * MIB}", preload_content=False)
    length = sum(len(piece) for piece in answer.stream(65536))
    check("urllib3: a streamed download", length == 4 * MIB, length)


async def with_aiohttp():
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{base}/aura/v1/instances") as answer:
            check("aiohttp: GET", answer.status == 200 and (await answer.json())["data"])

        async def body():
            for piece in pieces(MIB, 4):
                yield piece

        async with session.post(f"{base}/neon/sink", data=body()) as answer:
            check("aiohttp: a streamed upload", await answer.json() == {"bytes": 4 * MIB})
        async with session.get(f"{base}/neon/bytes/{4 * MIB}") as answer:
            length = sum([len(piece) async for piece in answer.content.iter_chunked(65536)])
            check("aiohttp: a streamed download", length == 4 * MIB, length)

        async def one(number):
            async with session.get(f"{base}/neon/slow/{number % 7}") as answer:
                return answer.status

        statuses = await asyncio.gather(*(one(number) for number in range(200)))
        check("aiohttp: 200 requests at once", statuses == [200] * 200, set(statuses))


with_requests()
with_urllib3()
asyncio.run(with_aiohttp())
