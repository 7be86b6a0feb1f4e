"""The session manager of the library, and an application that is built once for all tests."""

import asyncio

import httpx2
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient

from stillroom.engine import EngineSettings
from stillroom.fastapi import SessionDependency, UnitOfWorkRoute, install, lifespan
from stillroom.manager import DatabaseSessionManager
from tests.testing.conformance.authors import Author, Base, gather_all
from tests.testing.conftest import TRAP

SETTINGS = EngineSettings(pool_size=4, statement_timeout=5.0, pool_timeout=5.0)

manager = DatabaseSessionManager(Base.metadata)
get_db = SessionDependency(manager)
router = APIRouter(route_class=UnitOfWorkRoute)


@router.post("/authors/{name}")
async def create(
    name: str, tasks: BackgroundTasks, fails: bool = False, db: AsyncSession = Depends(get_db)
) -> int:
    """Create an author, and another one in the background."""
    author = Author(name=name)
    db.add(author)
    await db.flush()
    if fails:
        raise HTTPException(409)
    tasks.add_task(create_later, f"{name} later")
    return author.id


async def create_later(name: str) -> None:
    """Create an author in a session of its own."""
    async with manager.begin() as session:
        session.add(Author(name=name))


@router.get("/authors")
async def show(db: AsyncSession = Depends(get_db)) -> list[str]:
    """Show all names."""
    return sorted(await db.scalars(select(Author.name)))


@router.get("/sneaky")
async def sneak(db: AsyncSession = Depends(get_db)) -> None:
    """Write in a request that reads."""
    await db.execute(text("INSERT INTO author (name) VALUES ('sneaky')"))


app = FastAPI(lifespan=lifespan(manager, lambda: TRAP, settings=SETTINGS))
install(app, manager)
app.include_router(router)


async def committed() -> list[str]:
    """Return the names that another session sees."""
    async with manager.session(read_only=True) as session:
        return sorted(await session.scalars(select(Author.name)))


async def test_the_managers_blocks_end_as_they_say() -> None:
    """session() rolls back, begin() and connect() commit; an exception rolls back."""
    manager.init(TRAP, settings=SETTINGS)
    async with manager.session() as session:
        session.add(Author(name="lost"))
        await session.flush()
    async with manager.begin() as session:
        session.add(Author(name="a"))
    async with manager.connect() as connection:
        await connection.execute(text("INSERT INTO author (name) VALUES ('b')"))
    with pytest.raises(ZeroDivisionError):
        async with manager.begin() as session:
            session.add(Author(name="lost"))
            await session.flush()
            raise ZeroDivisionError

    assert await committed() == ["a", "b"]
    await manager.close()


async def test_a_read_session_of_the_manager_reads_only() -> None:
    """PostgreSQL refuses its writes."""
    manager.init(TRAP, settings=SETTINGS)
    async with manager.session(read_only=True) as session:
        with pytest.raises(DBAPIError, match="read-only transaction"):
            await session.execute(text("INSERT INTO author (name) VALUES ('lost')"))

    assert await committed() == []
    await manager.close()


async def test_a_manager_opens_again() -> None:
    """close() and init() in turn, in use by many tasks."""
    for time in range(2):
        manager.init(TRAP, settings=SETTINGS)

        async def work(number: int, time: int = time) -> None:
            async with manager.begin() as session:
                session.add(Author(name=f"{time} {number}"))

        await gather_all(8, work)
        assert len(await committed()) == 8 * (time + 1)
        await manager.close()


def test_a_manager_serves_several_loops() -> None:
    """One manager, open all the time, in an event loop after the other."""
    manager.init(TRAP, settings=SETTINGS)

    async def write(name: str) -> list[str]:
        async with manager.begin() as session:
            session.add(Author(name=name))
        return await committed()

    assert [asyncio.run(write(name)) for name in "ab"] == [["a"], ["a", "b"]]
    asyncio.run(manager.close())


@pytest.mark.parametrize("time", [1, 2])
async def test_an_application_is_built_once(time: int) -> None:
    """Requests on one application in several tests, each of which has its own event loop."""
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        assert (await client.post("/authors/a")).json() == 1
        assert (await client.post("/authors/b?fails=true")).status_code == 409
        assert (await client.post("/authors/a")).status_code == 409
        assert (await client.get("/sneaky")).status_code >= 400
        assert (await client.get("/authors")).json() == ["a", "a later"]


async def test_requests_run_at_once() -> None:
    """Many requests, each with its unit of work and its background task."""
    transport = httpx2.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        answers = await gather_all(20, lambda number: client.post(f"/authors/{number:02}"))
        assert {answer.status_code for answer in answers} == {200}
        assert len((await client.get("/authors")).json()) == 40


@pytest.mark.parametrize("time", [1, 2])
def test_a_synchronous_client_shares_the_application(time: int) -> None:
    """TestClient, with a loop of its own for each block."""
    for number in range(2):
        with TestClient(app) as client:
            assert client.post(f"/authors/{number}").status_code == 200
            assert len(client.get("/authors").json()) == 2 * (number + 1)


async def test_a_unit_of_work_may_fail_at_its_commit() -> None:
    """A constraint that is checked at COMMIT fails the block, and the manager goes on."""
    manager.init(TRAP, settings=SETTINGS)
    with pytest.raises(IntegrityError):
        async with manager.begin() as session:
            await session.execute(text("INSERT INTO book (title, author_id) VALUES ('x', 99)"))
    async with manager.begin() as session:
        session.add(Author(name="a"))

    assert await committed() == ["a"]
    await manager.close()
