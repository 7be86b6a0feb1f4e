"""A list of any length as one JSON array, or as lines of JSON."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import RootModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Message

from stillroom.engine import EngineSettings
from stillroom.fastapi import (
    JSONArrayResponse,
    JSONLinesResponse,
)
from stillroom.json import JSONSelect
from tests.fastapi.conftest import Jar, JarSchema, manager


@pytest.mark.parametrize("number", [0, 1, 1999, 2000, 2001, 4000, 4001])
async def test_a_list_of_any_length_is_one_array(
    app: FastAPI, client: httpx2.AsyncClient, number: int
) -> None:
    """Whole or streamed, the body is the same JSON; a short one says its length."""

    async def read(session: AsyncSession, size: int) -> AsyncGenerator[Sequence[dict[str, Any]]]:
        query = text("SELECT n AS id, 'x' AS name FROM generate_series(1, :number) n")
        rows = await session.stream(
            query, {"number": number}, execution_options={"yield_per": size}
        )
        async for part in rows.mappings().partitions(size):
            yield [dict(row) for row in part]

    @app.get("/rows")
    async def rows() -> JSONArrayResponse:
        return JSONArrayResponse(manager, read, JarSchema)

    response = await client.get("/rows")

    assert json.loads(response.content) == [{"id": n + 1, "name": "x"} for n in range(number)]
    assert ("content-length" in response.headers) == (number <= 2000)
    assert response.headers["content-type"] == "application/json"


async def test_a_list_of_lists_is_not_taken_for_whole(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """What the rows look like does not matter: here each ends with a bracket."""

    async def read(_session: AsyncSession, size: int) -> AsyncGenerator[list[list[int]]]:
        yield [[number] for number in range(size)]
        yield [[-1]]

    @app.get("/lists")
    async def lists() -> JSONArrayResponse:
        return JSONArrayResponse(manager, read, RootModel[list[int]])

    response = await client.get("/lists")

    assert len(json.loads(response.content)) == 2001


async def test_parts_may_be_of_any_size(app: FastAPI, client: httpx2.AsyncClient) -> None:
    """A short part, or an empty one, is not taken for the last."""

    async def read(_session: AsyncSession, _size: int) -> AsyncGenerator[list[int]]:
        for part in ([1], [], [2, 3], []):
            yield part

    @app.get("/parts")
    async def parts() -> JSONArrayResponse:
        return JSONArrayResponse(manager, read, int)

    assert (await client.get("/parts")).json() == [1, 2, 3]


EVERY_JAR = JSONSelect(Jar.every_row(), JarSchema)


@pytest.mark.parametrize("number", [0, 1, 2000, 30_000])
async def test_rows_may_be_lines(app: FastAPI, client: httpx2.AsyncClient, number: int) -> None:
    """Each ends with a break; of rows, and of what PostgreSQL has written."""

    async def read(session: AsyncSession, size: int) -> AsyncGenerator[Sequence[Jar]]:
        async for part in Jar.get_all_in_parts(session, size):
            yield part

    @app.get("/lines")
    async def lines(of: str) -> JSONLinesResponse:
        if of == "rows":
            return JSONLinesResponse(manager, read, JarSchema)
        return JSONLinesResponse(manager, EVERY_JAR.in_lines, headers={"X-Of": of})

    async with manager.connect() as connection:
        fill = "INSERT INTO jars (name) SELECT 'jar ' || n FROM generate_series(1, :number) n"
        await connection.execute(text(fill), {"number": number})
    for of in ("rows", "postgresql", "postgresql"):
        response = await client.get("/lines", params={"of": of})
        assert response.headers["content-type"] == "application/jsonl"
        assert response.headers.get("x-of", "rows") == of
        *found, last = response.content.split(b"\n")
        assert last == b""
        names = [json.loads(line)["name"] for line in found]
        assert names == [f"jar {n + 1}" for n in range(number)]
        assert ("content-length" in response.headers) == (number <= 2000)


async def test_streams_leave_connections_for_others(
    app: FastAPI, client: httpx2.AsyncClient, database_url: str
) -> None:
    """Half of the pool is theirs; one more waits, and is told to come back."""
    await manager.close()
    manager.init(database_url, settings=EngineSettings(pool_size=2, pool_timeout=3.0))

    @app.get("/streamed")
    async def streamed() -> JSONArrayResponse:
        async def read(session: AsyncSession, _size: int) -> AsyncGenerator[list[dict[str, int]]]:
            yield [{"id": 1}]

        return JSONArrayResponse(manager, read, dict)

    async with manager.long_session(read_only=True) as session:
        await session.execute(text("SELECT 1"))
        refused = await client.get("/streamed")
        others = await client.get("/jars")
    allowed = await client.get("/streamed")

    assert [answer.status_code for answer in (refused, others, allowed)] == [503, 200, 200]
    assert refused.json()["code"] == "pool_timeout"


@pytest.mark.parametrize("is_reading", [True, False])
async def test_a_client_that_leaves_a_stream_costs_no_connection(
    app: FastAPI, client: httpx2.AsyncClient, is_reading: bool
) -> None:
    """While rows are read PostgreSQL ends the statement; while they are sent no more are read."""
    reading, left = asyncio.Event(), asyncio.Event()

    async def read(session: AsyncSession, size: int) -> AsyncGenerator[list[dict[str, int]]]:
        rows = await session.stream(
            text("SELECT n, pg_sleep(n / 101) FROM generate_series(1, 200) n"),
            execution_options={"yield_per": size},
        )
        async for part in rows.mappings().partitions(10):
            yield [{"n": 1}]
            if part[-1]["n"] == 100:  # those that come now take a second each
                reading.set()

    response = JSONArrayResponse(manager, read, dict[str, int])

    async def receive() -> Message:
        await (reading if is_reading else left).wait()
        if is_reading:
            await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if not is_reading and message["type"] == "http.response.body":
            await left.wait()  # as a server does whose client reads nothing

    asyncio.get_running_loop().call_later(0.1, left.set)
    before = await pid()
    async with asyncio.timeout(10):
        await response({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)

    assert await pid() == before


async def pid() -> int:
    """Return the process of the one connection that read sessions have been given last."""
    async with manager.session(read_only=True) as session:
        return int(await session.scalar(text("SELECT pg_backend_pid()")) or 0)
