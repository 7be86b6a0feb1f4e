"""A watch over what an override of `get_db` brings."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from tests.fastapi.conftest import Jar, get_db, manager, names


async def bring_a_session() -> AsyncIterator[AsyncSession]:
    """Override `get_db` as the article's test does."""
    async with manager.session() as session:
        yield session


async def test_an_override_that_leaves_writes_uncommitted_is_a_loud_error(
    app: FastAPI, client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The client is not told 200 for rows that are about to be rolled back."""
    app.dependency_overrides[get_db] = bring_a_session

    response = await client.post("/jars", params={"name": "lost"})

    assert (response.status_code, await names()) == (500, [])
    assert "Remove the override from app.dependency_overrides" in caplog.text


async def test_an_override_with_an_engine_of_its_own_is_watched_too(
    app: FastAPI, client: httpx2.AsyncClient, database_url: str
) -> None:
    """A session that no manager has made is seen as well, raw SQL included."""
    engine = create_async_engine(database_url.replace("postgresql:", "postgresql+asyncpg:"))

    async def bring_another() -> AsyncIterator[AsyncSession]:
        async with async_sessionmaker(engine)() as session:
            await session.execute(text("INSERT INTO jars (name) VALUES ('raw')"))
            yield session

    app.dependency_overrides[get_db] = bring_another

    assert (await client.get("/jars")).status_code == 500
    assert await names() == []
    await engine.dispose()


async def test_an_override_that_only_reads_is_let_be(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """There is nothing to lose where nothing was written."""
    app.dependency_overrides[get_db] = bring_a_session

    assert (await client.get("/jars")).status_code == 200


async def test_an_override_whose_view_commits_is_let_be(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """What is committed cannot be lost."""
    app.dependency_overrides[get_db] = bring_a_session

    response = await client.post("/jars-by-commit", params={"name": "kept"})

    assert (response.status_code, await names()) == (200, ["kept"])


@pytest.mark.parametrize(
    ("path", "status", "kept"),
    [("/jars", 500, ["late"]), ("/jars-in-function-scope", 200, ["late"])],
)
async def test_an_override_may_commit_until_the_response_and_not_later(
    app: FastAPI, client: httpx2.AsyncClient, path: str, status: int, kept: list[str]
) -> None:
    """A teardown before the response commits in time; one after it is too late to be believed."""

    async def bring_and_commit() -> AsyncIterator[AsyncSession]:
        async with manager.session() as session:
            try:
                yield session
            finally:
                await session.commit()

    app.dependency_overrides[get_db] = bring_and_commit

    response = await client.post(path, params={"name": "late"})

    assert (response.status_code, await names()) == (status, kept)


async def test_a_session_of_a_fixture_is_watched_in_every_request(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """A session that began before the request is noted by its use."""
    async with manager.session() as session:
        await session.execute(text("SELECT 1"))
        app.dependency_overrides[get_db] = lambda: session

        answers = [await client.post("/jars", params={"name": str(n)}) for n in range(3)]

    assert [answer.status_code for answer in answers] == [500, 500, 500]
    assert await names() == []


async def test_a_redirect_that_is_raised_is_watched_too(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """A raised redirect says that all is well, like one that is returned."""

    @app.post("/raised")
    async def raised(db: AsyncSession = Depends(get_db)) -> None:
        await Jar.create(db, name="lost")
        raise HTTPException(303, headers={"Location": "/"})

    app.dependency_overrides[get_db] = bring_a_session

    assert (await client.post("/raised")).status_code == 500
    assert await names() == []
