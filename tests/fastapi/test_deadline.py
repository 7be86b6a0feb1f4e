"""A request that takes too long is ended, in PostgreSQL too, and its connection survives."""

import asyncio

import httpx2
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.engine import EngineSettings
from stillroom.fastapi import unit_of_work
from stillroom.json import JSONSelect
from tests.fastapi.conftest import Jar, JarSchema, get_db, manager, names
from tests.test_manager import make_commits_slow, nothing_left

SLEEP = text("SELECT pg_sleep(30)")
PID = text("SELECT pg_backend_pid()")


async def test_postgresql_ends_the_statement_and_the_connection_goes_on(
    app_on_a_driver: FastAPI, client_on_a_driver: httpx2.AsyncClient
) -> None:
    """504, nothing is written, nothing runs on, and no connection has to be made anew."""
    pids: list[int] = []

    @app_on_a_driver.post("/slow")
    @unit_of_work(deadline=0.3)
    async def slow(db: AsyncSession = Depends(get_db)) -> None:
        pids.append((await db.execute(PID)).scalar_one())
        await Jar.create(db, name="late")
        await db.execute(SLEEP)

    answers = [await client_on_a_driver.post("/slow") for _ in range(3)]

    assert [answer.status_code for answer in answers] == [504, 504, 504]
    assert {answer.json()["code"] for answer in answers} == {"deadline"}
    assert len(set(pids)) == 1
    assert await names() == []
    await nothing_left(manager)


async def test_a_lone_read_is_ended_in_postgresql_too(
    app_on_a_driver: FastAPI, client_on_a_driver: httpx2.AsyncClient
) -> None:
    """So is a read that has no transaction and no SQLAlchemy around it."""
    numbers = select(func.count()).select_from(func.generate_series(1, 10**9))
    jars = JSONSelect(select(Jar).where(Jar.id < numbers.scalar_subquery()), JarSchema)

    @app_on_a_driver.get("/slow-read")
    @unit_of_work(deadline=0.3)
    async def slow_read(db: AsyncSession = Depends(get_db)) -> None:
        await jars.all(db)

    await client_on_a_driver.post("/jars", params={"name": "read"})
    before = await _pids()
    answer = await client_on_a_driver.get("/slow-read")

    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
    assert await _pids() >= before
    await nothing_left(manager)


async def test_what_waits_for_anything_else_is_cancelled(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """The deadline is the request's, whatever the view does."""

    @app.post("/waits")
    @unit_of_work(deadline=0.2)
    async def waits(db: AsyncSession = Depends(get_db)) -> None:
        await Jar.create(db, name="waits")
        await asyncio.Event().wait()

    answer = await client.post("/waits")

    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
    assert await names() == []
    await nothing_left(manager)


async def test_a_commit_that_outlives_the_deadline_is_not_cut(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """Its outcome is unknown to the client, and it runs to its end."""
    await make_commits_slow(manager, 1.0)

    @app.post("/slow-commit")
    @unit_of_work(deadline=0.3)
    async def slow_commit(db: AsyncSession = Depends(get_db)) -> None:
        await Jar.create(db, name="whole")

    answer = await client.post("/slow-commit")

    assert (answer.status_code, answer.json()["code"]) == (503, "outcome_unknown")
    async with asyncio.timeout(10):
        while await names() != ["whole"]:  # noqa: ASYNC110  (PostgreSQL tells nobody)
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_longer_deadline_is_one_for_postgresql_too(
    database_url: str, app: FastAPI, client: httpx2.AsyncClient, method: str
) -> None:
    """A view that may take longer than other statements is not ended by PostgreSQL before."""
    await manager.close()
    manager.init(database_url, settings=EngineSettings(statement_timeout=0.2))

    @app.api_route("/long", methods=[method])
    @unit_of_work(deadline=20)
    async def long(db: AsyncSession = Depends(get_db)) -> str:
        await db.execute(text("SELECT pg_sleep(0.5)"))
        return "done"

    @app.api_route("/short", methods=[method])
    async def short(db: AsyncSession = Depends(get_db)) -> None:
        await db.execute(text("SELECT pg_sleep(0.5)"))

    assert (await client.request(method, "/long")).json() == "done"
    answer = await client.request(method, "/short")
    assert (answer.status_code, answer.json()["code"]) == (504, "statement_timeout")


async def test_a_request_that_is_cancelled_is_not_told_of_a_deadline(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """A cancellation from outside goes on as one."""

    @app.post("/waits")
    async def waits(db: AsyncSession = Depends(get_db)) -> None:
        await db.execute(PID)
        await asyncio.Event().wait()

    request = asyncio.create_task(client.post("/waits"))
    await asyncio.wait({request}, timeout=0.2)
    request.cancel()

    with pytest.raises(asyncio.CancelledError):
        await request
    await nothing_left(manager)


async def _pids() -> set[int]:
    query = text(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'stillroom'"
    )
    async with manager.session(read_only=True) as session:
        return set((await session.execute(query)).scalars())
