"""Work that the database has refused for the time being is done again, as a whole."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.fastapi import unit_of_work
from stillroom.fastapi.deadline import Deadline
from stillroom.fastapi.retry import retry
from tests.fastapi.conftest import Jar, get_db, manager, names
from tests.test_manager import nothing_left


class Fault:
    """Meet a fault of the database in the first attempts."""

    def __init__(self, statement: str, times: int) -> None:
        self.statement = statement
        self.times = times
        self.attempts = 0

    async def meet(self, db: AsyncSession) -> None:
        """Count an attempt, and let it fail if it is one of the first."""
        self.attempts += 1
        if self.attempts <= self.times:
            await db.execute(text(self.statement))


def raises(sqlstate: str) -> str:
    """Return a statement that fails with this SQLSTATE."""
    return f"DO $$ BEGIN RAISE EXCEPTION 'in the way' USING ERRCODE = '{sqlstate}'; END $$"


CUT = "SELECT pg_terminate_backend(pg_backend_pid())"


@pytest.mark.parametrize("statement", [raises("40001"), raises("40P01"), CUT])
@pytest.mark.parametrize(("method", "retried"), [("PUT", True), ("DELETE", True), ("POST", False)])
async def test_what_may_be_done_twice_is_done_again(
    app_on_a_driver: FastAPI,
    client_on_a_driver: httpx2.AsyncClient,
    statement: str,
    method: str,
    retried: bool,
) -> None:
    """A conflict or a lost connection is no answer where the same request twice is the same."""
    fault = Fault(statement, times=2)

    @app_on_a_driver.api_route("/work", methods=[method])
    async def work(db: AsyncSession = Depends(get_db)) -> None:
        await Jar.create(db, name="once")
        await fault.meet(db)

    answer = await client_on_a_driver.request(method, "/work")

    assert answer.status_code == (200 if retried else 503)
    assert fault.attempts == (3 if retried else 1)
    assert await names() == (["once"] if retried else [])
    await nothing_left(manager)


@pytest.mark.parametrize("statement", [raises("40001"), CUT])
async def test_a_read_is_done_again(
    app_on_a_driver: FastAPI, client_on_a_driver: httpx2.AsyncClient, statement: str
) -> None:
    """No client of a GET sees that a connection was lost."""
    fault = Fault(statement, times=1)

    @app_on_a_driver.get("/read")
    async def read(db: AsyncSession = Depends(get_db)) -> int:
        await fault.meet(db)
        answer: int = (await db.execute(text("SELECT 42"))).scalar_one()
        return answer

    answer = await client_on_a_driver.get("/read")

    assert (answer.status_code, answer.json()) == (200, 42)


@pytest.mark.parametrize(("method", "retry"), [("POST", True), ("PUT", False)])
async def test_a_view_says_otherwise(
    app: FastAPI, client: httpx2.AsyncClient, method: str, retry: bool
) -> None:
    """Whether it may run again is known best by who wrote it."""
    fault = Fault(raises("40001"), times=1)

    @app.api_route("/work", methods=[method])
    @unit_of_work(retry=retry)
    async def work(db: AsyncSession = Depends(get_db)) -> None:
        await fault.meet(db)

    answer = await client.request(method, "/work")

    assert answer.status_code == (200 if retry else 503)


async def test_a_fault_that_stays_is_an_answer(app: FastAPI, client: httpx2.AsyncClient) -> None:
    """After some attempts the client is told to come back."""
    fault = Fault(raises("40001"), times=1000)

    @app.put("/work")
    async def work(db: AsyncSession = Depends(get_db)) -> None:
        await fault.meet(db)

    answer = await client.put("/work")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert fault.attempts == 5


async def test_no_attempt_begins_that_the_deadline_would_end() -> None:
    """The pauses are within the time that the request has."""
    attempts: list[None] = []

    async def attempt() -> Response:
        attempts.append(None)
        raise DBAPIError(None, None, Exception(), connection_invalidated=True)

    request = Request({"type": "http", "fastapi_inner_astack": AsyncExitStack()})
    with Deadline(0.005) as deadline, pytest.raises(DBAPIError):
        await retry(attempt, request, deadline, lambda: False)

    assert len(attempts) == 1


async def test_work_that_is_committed_in_part_is_not_done_again(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """A view that commits by itself keeps what it has committed, once."""
    fault = Fault(raises("40001"), times=1)

    @app.put("/work")
    async def work(db: AsyncSession = Depends(get_db)) -> None:
        await Jar.create(db, name="kept")
        await db.commit()
        await fault.meet(db)

    answer = await client.put("/work")

    assert (answer.status_code, fault.attempts) == (503, 1)
    assert await names() == ["kept"]


async def test_another_error_is_none_to_try_again(app: FastAPI, client: httpx2.AsyncClient) -> None:
    """A duplicate stays one."""
    fault = Fault(raises("23505"), times=1)

    @app.put("/work")
    async def work(db: AsyncSession = Depends(get_db)) -> None:
        await fault.meet(db)

    assert (await client.put("/work")).status_code == 409
    assert fault.attempts == 1


class Body(BaseModel):
    """The body of a request."""

    name: str


async def test_each_attempt_has_the_whole_body(app: FastAPI, client: httpx2.AsyncClient) -> None:
    """What the client sent is kept for the next attempt."""
    fault = Fault(raises("40001"), times=2)

    @app.put("/work")
    async def work(body: Body, db: AsyncSession = Depends(get_db)) -> str:
        await fault.meet(db)
        return body.name

    answer = await client.put("/work", json={"name": "whole"})

    assert (answer.status_code, answer.json()) == (200, "whole")


async def test_a_body_that_was_streamed_is_not_read_again(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """The second attempt would see its end: it is not made."""
    fault = Fault(raises("40001"), times=1)

    @app.put("/work")
    async def work(request: Request, db: AsyncSession = Depends(get_db)) -> None:
        async for _ in request.stream():
            pass
        await fault.meet(db)

    answer = await client.put("/work", content=b"content")

    assert (answer.status_code, fault.attempts) == (503, 1)


async def test_the_dependencies_of_an_attempt_end_with_its_error(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """One that did its work only where all went well does it once, after the response."""
    fault = Fault(raises("40001"), times=2)
    seen: list[str] = []

    async def resource() -> AsyncIterator[str]:
        try:
            yield "resource"
        except Exception as error:
            seen.append(type(error).__name__)
            raise
        seen.append("ended")

    @app.put("/work")
    async def work(
        resource: Annotated[str, Depends(resource)], db: Annotated[AsyncSession, Depends(get_db)]
    ) -> None:
        seen.append(f"begins {resource}")
        await fault.meet(db)

    answer = await client.put("/work")

    assert answer.status_code == 200
    assert seen == ["begins resource", "DBAPIError"] * 2 + ["begins resource", "ended"]


async def test_a_change_of_the_schema_fails_no_request(
    app_on_a_driver: FastAPI, client_on_a_driver: httpx2.AsyncClient
) -> None:
    """A prepared statement that a migration has made old is planned anew."""

    @app_on_a_driver.get("/columns")
    async def columns(db: AsyncSession = Depends(get_db)) -> list[dict[str, Any]]:
        rows = await db.execute(text("SELECT * FROM jars"))
        return [dict(row) for row in rows.mappings()]

    @app_on_a_driver.post("/columns")
    @unit_of_work(retry=True)
    async def add(db: AsyncSession = Depends(get_db)) -> list[dict[str, Any]]:
        rows = await db.execute(text("INSERT INTO jars (name) VALUES ('new') RETURNING *"))
        return [dict(row) for row in rows.mappings()]

    statuses: list[int] = []
    changes = ["ALTER COLUMN name TYPE text", "ADD extra int", "ALTER extra TYPE text"]
    for change in changes:
        for _ in range(7):  # psycopg prepares what it has run five times
            for method in ("GET", "POST"):
                answer = await client_on_a_driver.request(method, "/columns")
                statuses.append(answer.status_code)
        async with manager.connect() as connection:
            await connection.execute(text(f"ALTER TABLE jars {change}"))
    statuses += [
        (await client_on_a_driver.request(method, "/columns")).status_code
        for method in ("GET", "POST")
    ]

    assert set(statuses) == {200}
