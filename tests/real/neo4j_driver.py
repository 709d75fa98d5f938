"""Runs the official Neo4j driver, sync and async, over the Query API: URI USER PASSWORD [any].

With `any`, another password is expected to do as well, as behind a sidekey.
"""

import asyncio
import sys

import neo4j

uri, user, password = sys.argv[1:4]
any_password = sys.argv[4:] == ["any"]
auth = (user, password)

with neo4j.GraphDatabase.driver(uri, auth=auth) as driver:
    records, summary, keys = driver.execute_query("RETURN 1 AS n", database_="neo4j")
    assert (keys, records[0]["n"]) == (["n"], 1), (keys, records)

    given = {"i": -7, "f": 1.5, "s": "ä", "l": [1, [None, True]], "m": {"k": "v"}, "b": b"\x00\xff"}
    statement = "RETURN " + ", ".join(f"${name} AS {name}" for name in given)
    with driver.session(database="neo4j") as session:
        assert session.run(statement, given).single().data() == given
        with session.begin_transaction() as transaction:
            assert transaction.run("RETURN 2 AS n").single()["n"] == 2
            assert transaction.run("RETURN 'x' AS n").single()["n"] == "x"
            transaction.commit()
        with session.begin_transaction() as transaction:
            transaction.rollback()
        assert session.last_bookmarks().raw_values
        try:
            session.run("OOPS").consume()
            raise AssertionError("no syntax error")
        except neo4j.exceptions.CypherSyntaxError:
            pass

with neo4j.GraphDatabase.driver(uri, auth=(user, "wrong")) as driver:
    try:
        driver.execute_query("RETURN 1 AS n", database_="neo4j")
        assert any_password, "no authentication error"
    except neo4j.exceptions.AuthError:
        assert not any_password, "an authentication error"


async def asynchronously():
    async with neo4j.AsyncGraphDatabase.driver(uri, auth=auth) as driver:
        records, _, _ = await driver.execute_query("RETURN 1 AS n", database_="neo4j")
        assert records[0]["n"] == 1


asyncio.run(asynchronously())
