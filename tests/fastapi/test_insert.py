"""A response that is the row it inserts."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import Response
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from stillroom.errors import ConfigurationError
from stillroom.fastapi import InsertResponse
from stillroom.json import JSONInsert
from tests.fastapi.conftest import Jar, JarSchema, get_db, manager, names
from tests.test_manager import nothing_left

NEW_JAR = JSONInsert(Jar, JarSchema)


async def insert(name: str, db: AsyncSession = Depends(get_db)) -> InsertResponse:
    """Insert a jar."""
    return InsertResponse(NEW_JAR, db, {"name": name}, status_code=201, headers={"X-Jar": name})


@pytest.fixture(autouse=True)
def route(app: FastAPI) -> None:
    """Let the application have a route that answers so."""
    app.post("/inserted", response_model=JarSchema)(insert)


async def test_the_answer_is_the_row(client: httpx2.AsyncClient) -> None:
    """With the status and the headers of the response, and committed."""
    response = await client.post("/inserted", params={"name": "one"})

    assert (response.status_code, response.headers["x-jar"]) == (201, "one")
    assert response.headers["content-type"] == "application/json"
    assert int(response.headers["content-length"]) == len(response.content)
    assert response.json()["name"] == "one"
    assert await names() == ["one"]


async def test_what_fails_in_it_is_an_answer(client: httpx2.AsyncClient) -> None:
    """Though it fails after the view has ended."""
    response = await client.post("/inserted", params={"name": "n" * 21})

    assert (response.status_code, await names()) == (422, [])
    await nothing_left(manager)


@pytest.mark.parametrize(("status", "kept"), [(None, ["before", "late", "x"]), (409, [])])
async def test_it_is_committed_with_the_rest_of_the_unit_of_work(
    app: FastAPI, client: httpx2.AsyncClient, status: int | None, kept: list[str]
) -> None:
    """What the view has done before, and what a dependency does after it, or nothing at all."""

    async def late(db: AsyncSession = Depends(get_db)) -> AsyncIterator[None]:
        yield
        await Jar.create(db, name="late")
        if status is not None:
            raise HTTPException(status)

    @app.post("/with-work", dependencies=[Depends(late, scope="function")])
    async def with_work(db: AsyncSession = Depends(get_db)) -> InsertResponse:
        await Jar.create(db, name="before")
        return InsertResponse(NEW_JAR, db, {"name": "x"})

    response = await client.post("/with-work")

    assert (response.status_code, await names()) == (status or 200, kept)


async def test_a_route_that_commits_nothing_is_a_loud_error(
    app: FastAPI, client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody is told of a row that is not there: not without a unit of work, not with an error."""
    router = APIRouter()

    @router.post("/plain")
    async def plain() -> Response:
        async with manager.session() as session:
            return InsertResponse(NEW_JAR, session, {"name": "never"})

    app.include_router(router)

    with pytest.raises(ConfigurationError, match="A response of 409 commits nothing"):
        async with manager.session() as session:
            InsertResponse(NEW_JAR, session, {}, status_code=409)
    assert (await client.post("/plain")).status_code == 500
    assert "POST /plain has returned an InsertResponse" in caplog.text
    assert await names() == []


async def test_a_safe_method_inserts_nothing(app: FastAPI, client: httpx2.AsyncClient) -> None:
    """Its session is one of reading."""
    app.get("/inserted-by-get", response_model=JarSchema)(insert)

    assert (await client.get("/inserted-by-get", params={"name": "x"})).status_code == 500
    assert await names() == []


async def test_a_session_of_an_override_is_watched(
    app: FastAPI, client: httpx2.AsyncClient, database_url: str
) -> None:
    """One of the manager commits with the response; of another nobody knows whether it will."""

    async def ours() -> AsyncIterator[AsyncSession]:
        async with manager.session() as session:
            yield session

    engine = create_async_engine(database_url.replace("postgresql:", "postgresql+asyncpg:"))

    async def another() -> AsyncIterator[AsyncSession]:
        async with async_sessionmaker(engine)() as session:
            yield session

    app.dependency_overrides[get_db] = ours
    assert (await client.post("/inserted", params={"name": "ours"})).status_code == 201
    app.dependency_overrides[get_db] = another
    assert (await client.post("/inserted", params={"name": "another"})).status_code == 500
    assert await names() == ["ours"]
    await engine.dispose()
