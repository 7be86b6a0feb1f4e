"""The unit of work of a request, in process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, WebSocket
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient

from stillroom.errors import ConfigurationError
from stillroom.fastapi import (
    SessionDependency,
)
from stillroom.manager import DatabaseSessionManager
from tests.fastapi.conftest import Jar, get_db, manager, names
from tests.test_manager import cancel, make_commits_slow, nothing_left


@pytest.mark.parametrize("by", ["task", "anyio"])
async def test_a_request_that_is_cancelled_in_mid_statement_leaves_nothing(
    app: FastAPI, client: httpx2.AsyncClient, by: str
) -> None:
    """Nothing is written, no statement runs on, no connection is lost."""

    @app.post("/slow-work")
    async def slow_work(db: AsyncSession = Depends(get_db)) -> None:
        await Jar.create(db, name="cancelled")
        await db.execute(text("SELECT pg_sleep(30)"))

    async def request() -> None:
        await client.post("/slow-work")

    await cancel(request, by, after=0.2)

    assert await names() == []
    await nothing_left(manager)


@pytest.mark.parametrize("by", ["task", "anyio"])
async def test_a_request_that_is_cancelled_at_its_commit_is_whole(
    app: FastAPI, client: httpx2.AsyncClient, by: str
) -> None:
    """A client that leaves gets the whole: the COMMIT runs to its end."""
    await make_commits_slow(manager, 0.6)

    async def request() -> None:
        await client.post("/jars", params={"name": "whole"})

    await cancel(request, by, after=0.3)

    assert await names() == ["whole"]
    await nothing_left(manager)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_task_that_a_view_forgot_harms_no_later_request(
    app: FastAPI, client: httpx2.AsyncClient, fails: bool
) -> None:
    """Its connection is given up, with the locks it holds: the pool stays whole."""
    forgotten: list[asyncio.Task[Any]] = []

    @app.post("/forgotten")
    async def forget(db: AsyncSession = Depends(get_db)) -> None:
        await Jar.create(db, name="forgotten")
        forgotten.append(asyncio.create_task(db.execute(text("SELECT pg_sleep(0.5)"))))
        await asyncio.sleep(0.05)
        if fails:
            raise HTTPException(409)

    await client.post("/forgotten")
    for number in range(20):
        assert (await client.post("/jars", params={"name": str(number)})).status_code == 200
    await asyncio.wait(forgotten)
    forgotten[0].exception()
    await nothing_left(manager)


async def test_a_redirect_that_is_raised_is_committed(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """Below 400 means committed, however the answer came about."""

    @app.post("/raised")
    async def raised(status: int, db: AsyncSession = Depends(get_db)) -> None:
        await Jar.create(db, name=str(status))
        raise HTTPException(status, headers={"Location": "/"})

    answers = [await client.post("/raised", params={"status": s}) for s in (303, 409)]

    assert [answer.status_code for answer in answers] == [303, 409]
    assert await names() == ["303"]


@pytest.mark.parametrize(
    ("end", "status", "kept"),
    [("raise", 409, []), ("write", 200, ["view", "after"]), ("pass over", 500, [])],
)
async def test_the_teardown_of_function_scope_belongs_to_the_work(
    app: FastAPI, client: httpx2.AsyncClient, end: str, status: int, kept: list[str]
) -> None:
    """What such a dependency raises rolls back; what it writes is committed with the rest."""

    async def audit(db: AsyncSession = Depends(get_db)) -> AsyncIterator[None]:
        with suppress(ZeroDivisionError):
            yield
        if end == "raise":
            raise HTTPException(409)
        if end == "write":
            await Jar.create(db, name="after")

    @app.post("/audited", dependencies=[Depends(audit, scope="function")])
    async def audited(db: AsyncSession = Depends(get_db)) -> None:
        await Jar.create(db, name="view")
        if end == "pass over":
            raise ZeroDivisionError

    assert (await client.post("/audited")).status_code == status
    assert await names() == kept


async def test_a_route_without_a_unit_of_work_is_refused_at_the_request(
    app: FastAPI, client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no lifespan has looked, the request is refused."""
    router = APIRouter()

    @router.post("/bare")
    async def bare(db: AsyncSession = Depends(get_db)) -> None:
        await Jar.create(db, name="bare")

    app.include_router(router)

    assert (await client.post("/bare")).status_code == 500
    assert "http /bare asks for a database session" in caplog.text


async def test_a_websocket_is_told_to_open_its_own_session(app: FastAPI) -> None:
    """A WebSocket has no response to commit before."""

    @app.websocket("/socket")
    async def socket(websocket: WebSocket, db: AsyncSession = Depends(get_db)) -> None:
        await websocket.accept()

    with (
        pytest.raises(ConfigurationError, match="websocket /socket asks for"),
        TestClient(app).websocket_connect("/socket"),
    ):
        pass


async def test_sessions_of_two_managers_in_one_request_are_refused(
    app: FastAPI, client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """One commit cannot cover two databases."""
    other = SessionDependency(DatabaseSessionManager())

    @app.post("/two")
    async def two(
        first: AsyncSession = Depends(get_db), second: AsyncSession = Depends(other)
    ) -> None:
        return None

    assert (await client.post("/two")).status_code == 500
    assert "two session managers" in caplog.text


async def test_every_dependency_of_a_request_gets_the_same_session(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """One session, one connection, one transaction a request, in any scope."""
    seen: list[AsyncSession] = []

    async def look(db: AsyncSession = Depends(get_db, use_cache=False)) -> None:
        seen.append(db)

    @app.post("/same", dependencies=[Depends(look)])
    async def same(
        one: AsyncSession = Depends(get_db),
        two: AsyncSession = Depends(get_db, scope="function"),
        _: None = Depends(look, use_cache=False),
    ) -> None:
        seen.extend((one, two))

    assert (await client.post("/same")).status_code == 200
    assert len(seen) == 4
    assert len(set(map(id, seen))) == 1


async def test_a_request_that_is_refused_costs_no_connection(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """The session takes a connection at its first statement, not before."""
    async with manager.session() as session:
        await session.execute(text("SELECT 1"))

    assert (await client.post("/jars")).status_code == 422
    pool: Any = manager.engine.pool
    assert pool.checkedin() == 1
