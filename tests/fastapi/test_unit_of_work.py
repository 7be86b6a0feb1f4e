"""The unit of work in an application, in process: overrides, refusals, lifespan, streams."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, RootModel
from sqlalchemy import String, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.testclient import TestClient

from stillroom.errors import ConfigurationError, LifecycleError
from stillroom.fastapi import (
    JSONArrayResponse,
    SessionDependency,
    UnitOfWorkRoute,
    install,
    lifespan,
)
from stillroom.manager import DatabaseSessionManager
from stillroom.model import Model
from tests.test_manager import cancel, make_commits_slow, nothing_left


class Base(Model, DeclarativeBase):
    """The base of these tables."""


class Jar(Base):
    """A row with a name."""

    __tablename__ = "jars"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20))


class JarSchema(BaseModel):
    """Show a jar."""

    model_config = {"from_attributes": True}

    id: int
    name: str


manager = DatabaseSessionManager(Base.metadata)
get_db = SessionDependency(manager)


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[FastAPI]:
    """Give an application with one route that writes, its manager open and its tables made."""
    app = FastAPI()
    install(app, manager)
    app.router.route_class = UnitOfWorkRoute

    @app.post("/jars", response_model=JarSchema)
    async def create(name: str, db: AsyncSession = Depends(get_db)) -> Jar:
        return await Jar.create(db, name=name)

    @app.post("/jars-in-function-scope", response_model=JarSchema)
    async def create_in_function_scope(
        name: str, db: AsyncSession = Depends(get_db, scope="function")
    ) -> Jar:
        return await Jar.create(db, name=name)

    @app.post("/jars-by-commit", response_model=JarSchema)
    async def create_and_commit(name: str, db: AsyncSession = Depends(get_db)) -> Jar:
        jar = await Jar.create(db, name=name)
        await db.commit()
        return jar

    @app.get("/jars")
    async def show(db: AsyncSession = Depends(get_db)) -> list[str]:
        return [jar.name for jar in await Jar.get_all(db)]

    manager.init(database_url)
    async with manager.connect() as connection:
        await manager.create_all(connection)
    yield app
    await manager.close()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """Give a client that talks to the application in process."""
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def names() -> list[str]:
    """Read the names that are committed."""
    async with manager.session() as session:
        return [jar.name for jar in await Jar.get_all(session)]


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


async def test_a_middleware_sees_the_answer_and_not_the_exception(
    app: FastAPI,
) -> None:
    """A 409 passes through the application's middleware, which may add CORS headers to it."""
    inner = Middleware(CORSMiddleware, allow_origins=["http://page"])
    app = FastAPI(middleware=[inner])
    install(app, manager)
    app.router.route_class = UnitOfWorkRoute

    @app.post("/twice")
    async def twice(db: AsyncSession = Depends(get_db)) -> None:
        await db.execute(text("INSERT INTO jars (id, name) VALUES (1, 'a'), (1, 'b')"))

    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.post("/twice", headers={"origin": "http://page"})

    assert response.status_code == 409
    assert response.headers["access-control-allow-origin"] == "http://page"


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


@pytest.mark.parametrize(("write", "status"), [(True, 500), (False, 303)])
async def test_a_handler_that_makes_a_success_of_an_exception_loses_no_writes(
    app: FastAPI, client: httpx2.AsyncClient, write: bool, status: int
) -> None:
    """The exception has rolled back: a redirect would say that all is well, if something was."""

    class NotLoggedInError(Exception):
        pass

    @app.exception_handler(NotLoggedInError)
    async def to_login(_request: Request, _error: Exception) -> RedirectResponse:
        return RedirectResponse("/login", 303)

    @app.post("/private")
    async def private(db: AsyncSession = Depends(get_db)) -> None:
        if write:
            await Jar.create(db, name="private")
        raise NotLoggedInError

    assert (await client.post("/private")).status_code == status
    assert await names() == []


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


async def test_an_error_in_a_task_group_has_the_meaning_of_its_cause(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """A TaskGroup wraps what its one task raised; the answer is that of the cause."""

    @app.post("/grouped")
    async def grouped(db: AsyncSession = Depends(get_db)) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(db.execute(text("INSERT INTO jars (id, name) VALUES (1, NULL)")))

    response = await client.post("/grouped")

    assert (response.status_code, response.json()["code"]) == (422, "missing_value")


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


@pytest.mark.parametrize(
    ("status", "detail"), [(499, "gone"), (400, {"x": float("nan")}), (418, {"x": object()})]
)
async def test_any_http_exception_is_a_problem(
    app: FastAPI, client: httpx2.AsyncClient, status: int, detail: object
) -> None:
    """A status without a name, and a detail that is no JSON, are answered all the same."""

    @app.get("/odd")
    async def odd() -> None:
        raise HTTPException(status, detail)

    response = await client.get("/odd")

    assert (response.status_code, response.json()["status"]) == (status, status)


async def test_a_table_that_the_models_do_not_know_is_not_named(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """Neither a column of an inner table, nor one of a table of the same name elsewhere."""
    async with manager.connect() as connection:
        await connection.execute(text("CREATE SCHEMA inner_matter"))
        await connection.execute(text("CREATE TABLE inner_matter.jars (id int, name int NOT NULL)"))

    @app.post("/inner")
    async def inner(db: AsyncSession = Depends(get_db)) -> None:
        await db.execute(text("INSERT INTO inner_matter.jars (id) VALUES (1)"))

    response = await client.post("/inner")

    assert response.status_code == 422
    assert "errors" not in response.json()


def test_a_route_without_a_unit_of_work_is_refused_at_start() -> None:
    """Nobody would commit there: the application does not start, and the message says why."""
    app = FastAPI(lifespan=lifespan(manager, lambda: "postgresql://user@127.0.0.1:1/nowhere"))
    router = APIRouter()

    async def needs_db(db: AsyncSession = Depends(get_db)) -> AsyncSession:
        return db

    @router.put("/jars/{id}", dependencies=[Depends(needs_db)])
    async def put(id: int) -> int:
        return id

    app.include_router(router, prefix="/api")

    with (
        pytest.raises(ConfigurationError, match=r"PUT /api/jars/\{id\} asks for a database"),
        TestClient(app),
    ):
        pass
    assert not manager.is_open


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


async def test_a_http_exception_may_carry_any_detail_and_headers(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    """What the application says of an error is kept."""

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, {"handle": "short"}, {"X-Spout": "1"})

    response = await client.get("/teapot")

    assert response.headers["x-spout"] == "1"
    assert response.json()["context"] == {"handle": "short"}


def test_the_lifespan_opens_and_closes_the_manager() -> None:
    """An application whose database is away starts, and answers 503 until it comes."""
    app = FastAPI(lifespan=lifespan(manager, lambda: "postgresql://user@127.0.0.1:1/nowhere"))
    install(app, manager)
    app.router.route_class = UnitOfWorkRoute

    @app.get("/jars")
    async def show(db: AsyncSession = Depends(get_db)) -> list[str]:
        return [jar.name for jar in await Jar.get_all(db)]

    with TestClient(app) as client:
        assert manager.is_open
        response = client.get("/jars")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert not manager.is_open


async def test_the_lifespan_refuses_a_manager_that_is_open(app: FastAPI) -> None:
    """A second init is an error there too, and the first one's connections stay."""
    with (
        pytest.raises(LifecycleError, match="open already"),
        TestClient(FastAPI(lifespan=lifespan(manager, lambda: "postgresql://user@host/name"))),
    ):
        pass
    assert manager.is_open


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


async def test_what_is_used_of_fastapi_is_there(app: FastAPI, client: httpx2.AsyncClient) -> None:
    """Contract: the inner names that the route class stands on are as in FastAPI 0.163 to 0.165."""
    from contextlib import AsyncExitStack

    from fastapi.routing import APIRoute, iter_route_contexts

    assert callable(APIRoute.get_route_handler)
    stacks: list[object] = []

    @app.get("/scope")
    async def scope(request: Request) -> None:
        stacks.append(request.scope["fastapi_function_astack"])
        assert request.scope["app"] is app

    await client.get("/scope")
    assert isinstance(stacks[0], AsyncExitStack)
    context = next(c for c in iter_route_contexts(app.routes) if c.path == "/jars")
    assert any(
        isinstance(dependency.call, SessionDependency)
        for dependency in context.dependant.dependencies
    )


async def test_the_document_follows_a_route_that_comes_later(app: FastAPI) -> None:
    """A route that is added after the document was made stands in the next one, described."""
    assert "/late" not in app.openapi()["paths"]

    @app.put("/late")
    async def late() -> None:
        return None

    assert "409" in app.openapi()["paths"]["/late"]["put"]["responses"]
    assert app.openapi() is app.openapi()
