"""The types of values, and the codecs that an engine has of its own."""

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.testing.conformance.authors import (
    code_of,
    driver_of,
    rows,
    run,
    value,
)  # fmt: skip
from tests.testing.conftest import NewEngine


async def test_engines_have_their_own_json(new_engine: NewEngine) -> None:
    """Two engines with other functions for JSON, in use at the same time."""

    def shout(text_: str) -> Any:
        return json.loads(text_.upper())

    plain, loud = new_engine(), new_engine(json_deserializer=shout)
    sql = "SELECT CAST(:data AS jsonb)"
    async with plain.connect() as one, loud.connect() as two:
        for _ in range(2):
            assert await value(one, sql, data='{"a": "b"}') == {"a": "b"}
            assert await value(two, sql, data='{"a": "b"}') == {"A": "B"}


async def test_a_connection_has_its_own_codecs(engine: AsyncEngine) -> None:
    """set_type_codec() changes one connection; a type of the user's own is known."""
    async with engine.connect() as one, engine.connect() as two:
        drivers = [await driver_of(it) for it in (one, two)]
        await drivers[0].set_type_codec(
            "mood", schema="public", encoder=str.lower, decoder=str.upper
        )
        await drivers[0].set_type_codec(
            "jsonb", schema="pg_catalog", encoder=str, decoder=str.title, format="text"
        )
        answers = [await driver.fetchval("SELECT 'ok'::mood") for driver in drivers]
        assert await drivers[0].fetchval("SELECT $1::mood", "SAD") == "SAD"
        assert await drivers[0].fetchval("SELECT '[true]'::jsonb") == "[True]"
        assert await drivers[1].fetchval("SELECT '[true]'::jsonb") == [True]

    assert answers == ["OK", "ok"]


@pytest.mark.parametrize(
    ("type_", "given"),
    [
        ("int[]", [1, None, 3]),
        ("text[][]", [["a", "b"], ["c", "d"]]),
        ("numeric", Decimal("1.00000000000000000001")),
        ("timestamptz", datetime(2024, 2, 29, 12, tzinfo=UTC)),
        ("date", date(2024, 2, 29)),
        ("interval", timedelta(days=3, seconds=5, microseconds=7)),
        ("uuid", uuid4()),
        ("bytea", bytes(range(256))),
        ("mood[]", ["sad", "happy"]),
        ("text", "snow \N{SNOWMAN}, quote ', back \\, dollar $1"),
    ],
)
async def test_a_value_comes_back(engine: AsyncEngine, type_: str, given: Any) -> None:
    """What is sent as a parameter is read from a table as the same value."""
    async with engine.begin() as connection:
        await run(connection, f"CREATE TABLE kept (a {type_})")
        driver = await driver_of(connection)
        await driver.execute("INSERT INTO kept VALUES ($1)", given)
        assert await driver.fetchval("SELECT a FROM kept") == given


async def test_composites_and_ranges_come_back(engine: AsyncEngine) -> None:
    """Types that the driver has to ask for first, one of them made in the same transaction."""
    async with engine.begin() as connection:
        await run(connection, "CREATE TYPE point3 AS (x int, y int, label text)")
        driver = await driver_of(connection)
        point = await driver.fetchval("SELECT $1::point3", (1, None, "here"))
        spans = await driver.fetchval("SELECT '{[1,3),[5,9)}'::int4multirange")
        points = await driver.fetchval("SELECT ARRAY[ROW(1, 2, 'a')::point3]")

    assert tuple(point) == (1, None, "here")
    assert [(span.lower, span.upper) for span in spans] == [(1, 3), (5, 9)]
    assert [tuple(it) for it in points] == [(1, 2, "a")]


async def test_large_values_go_through(engine: AsyncEngine) -> None:
    """Eight megabytes there and back, as text, as bytes, in a row of several."""
    much = "0123456789abcdef" * (8 << 16)
    async with engine.begin() as connection:
        driver = await driver_of(connection)
        await run(connection, "CREATE TABLE big (a text, b bytea)")
        await driver.execute("INSERT INTO big VALUES ($1, $2)", much, much.encode())
        row = await driver.fetchrow("SELECT a, b, length(a) FROM big")

    assert row["length"] == 8 << 20
    assert row["a"] == much
    assert row["b"] == much.encode()


@pytest.mark.parametrize(
    ("sql", "code"),
    [("SELECT CAST(:given AS text)", "22021"), ("SELECT CAST(:given AS jsonb)", "22021")],
)
async def test_a_nul_is_no_text(engine: AsyncEngine, sql: str, code: str) -> None:
    """PostgreSQL takes no NUL in text; the connection goes on."""
    async with engine.connect() as connection:
        assert await code_of(connection, sql, given='"a\0b"') == code
        await connection.rollback()
        assert await value(connection, "SELECT CAST(:given AS bytea)", given=b"a\0b") == b"a\0b"


async def test_a_nul_is_no_sql(engine: AsyncEngine) -> None:
    """A NUL in the text of a statement is an error of the protocol; the connection goes on."""
    async with engine.connect() as connection:
        with pytest.raises(DBAPIError) as failure:
            await connection.execute(text("SELECT 'a\0b'"))
        await connection.rollback()
        assert await value(connection, "SELECT 1") == 1

    assert getattr(failure.value.orig, "sqlstate", None) == "08P01"


async def test_an_enum_grows(engine: AsyncEngine) -> None:
    """A type that is made and used within a transaction, and renamed in the next."""
    async with engine.begin() as connection:
        await run(connection, "CREATE TYPE colour AS ENUM ('red', 'green')")
        await run(connection, "CREATE TABLE car (a colour)", "INSERT INTO car VALUES ('red')")
    async with engine.begin() as connection:
        await run(connection, "ALTER TYPE colour RENAME VALUE 'red' TO 'ruby'")
        assert await rows(connection, "SELECT a FROM car") == ["ruby"]
        assert await code_of(connection, "INSERT INTO car VALUES ('blue')") == "22P02"


async def test_json_and_enums_keep_their_types(engine: AsyncEngine) -> None:
    """The codecs of the engine are used."""
    async with engine.begin() as connection:
        statement = (
            "INSERT INTO author (name, feels, data) VALUES ('a', 'ok', CAST(:data AS jsonb)) "
            "RETURNING feels, data"
        )
        row = (await connection.execute(text(statement), {"data": '{"a": [1, null]}'})).one()

    assert tuple(row) == ("ok", {"a": [1, None]})
