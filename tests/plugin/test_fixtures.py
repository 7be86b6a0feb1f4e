"""The fixtures of the plugin, each from a project that uses it."""

from tests.projects import SERVICE, Project

ALL = """
import asyncio

import pytest
from application import sessionmanager as the_manager
from models import Session, User
from sqlalchemy import func, select

TWICE = pytest.mark.parametrize("time", [1, 2])
COUNT = select(func.count(User.id))
apps = set()


@TWICE
def test_the_app_is_made_once_by_its_factory(app, time):
    assert app.state.made
    apps.add(id(app))
    assert len(apps) == 1


@TWICE
def test_the_client_talks_to_it(app, client, time):
    assert client.app is app
    assert client.post("/users/a").json() == 1
    assert client.get("/users").json() == ["a"]
    assert client.post("/users/a").status_code == 409


@TWICE
@pytest.mark.asyncio
async def test_the_asynchronous_client_talks_to_it_from_any_loop(async_client, time):
    answers = await asyncio.gather(*(async_client.post(f"/users/{n}") for n in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len((await async_client.get("/users")).json()) == 20


@pytest.mark.anyio
async def test_also_from_one_of_anyio(async_client, anyio_backend):
    assert (await async_client.post("/users/a")).json() == 1


@pytest.fixture
def anyio_backend():
    return "asyncio"


def test_but_from_no_loop_that_is_not_of_asyncio(async_client):
    request = async_client.get("/users")
    with pytest.raises(RuntimeError, match="trio has none"):
        request.send(None)  # as trio would


@TWICE
@pytest.mark.asyncio
async def test_the_session_arranges_and_looks(session, async_client, time):
    session.add(user := User(email="arranged"))
    await session.commit()
    assert (await async_client.get("/users")).json() == ["arranged"]
    await async_client.post("/users/added")
    assert await session.scalar(COUNT) == 2
    assert user.email == "arranged"  # it has not expired


@pytest.mark.asyncio
async def test_a_session_that_was_not_committed_stops_its_own_task_only(
    session, async_client, stillroom_refusals
):
    session.add(User(email="uncommitted"))
    await session.flush()
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = await async_client.get("/users")
    assert loop.time() - began < 1  # it is known at once, not after a wait
    assert answer.status_code == 500
    refusals = stillroom_refusals()
    assert refusals and all("the same task holds both" in str(it) for it in refusals)


def test_the_urls(database_url, stillroom_url):
    assert database_url.startswith("postgresql+asyncpg://")
    assert stillroom_url == database_url.replace("+asyncpg", "")
    assert "database.invalid" not in database_url


def test_an_empty_database_beside_it(stillroom_new_database, stillroom_url):
    assert stillroom_new_database() not in (stillroom_new_database(), stillroom_url)


def test_where_alembic_is(stillroom_migrations_folder, pytestconfig):
    assert stillroom_migrations_folder == pytestconfig.rootpath


@TWICE
@pytest.mark.asyncio
async def test_the_manager_is_opened_where_there_is_no_client(sessionmanager, time):
    assert sessionmanager is the_manager
    async with sessionmanager.begin() as session:
        session.add(User(email="a"))
    async with sessionmanager.session() as session:
        assert await session.scalar(COUNT) == 1


def test_and_closed_again():
    assert not the_manager.is_open


def test_it_is_open_with_the_client(sessionmanager, client):
    assert sessionmanager is the_manager and sessionmanager.is_open
    assert client.get("/users").json() == []


def test_the_order_does_not_matter(client, sessionmanager):
    assert sessionmanager.is_open
    assert client.get("/users").json() == []


@pytest.mark.asyncio
async def test_a_client_with_the_manager(sessionmanager, async_client):
    async with sessionmanager.begin() as session:
        session.add(User(email="a"))
    assert (await async_client.get("/users")).json() == ["a"]


def test_queries(queries, stillroom_queries, client):
    assert queries is stillroom_queries
    with queries.exactly(1):
        client.get("/users")
"""

OVERRIDING = '''
from contextlib import asynccontextmanager

import pytest
from application import app as the_app
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine


@pytest.fixture(scope="session")
def app():
    """Make an application whose lifespan warms its pool."""

    @asynccontextmanager
    async def lifespan(app):
        engine = create_async_engine("postgresql+asyncpg://nobody@database.invalid/production")
        connections = [await engine.connect() for _ in range(3)]
        for connection in connections:
            await connection.close()
        yield {"engine": engine}
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.get("/count")
    async def count(request: Request):
        async with request.state.engine.connect() as connection:
            return (await connection.execute(text("SELECT count(*) FROM users"))).scalar()

    app.include_router(the_app.router)
    return app
'''.replace("import FastAPI", "import FastAPI, Request")

WIDE = """
import pytest
from fastapi.testclient import TestClient


@pytest.fixture(scope="session")
def client(app):
    with TestClient(app) as client:
        yield client


@pytest.fixture
def session():
    return "mine"


@pytest.mark.parametrize("time", [1, 2])
def test_a_client_that_outlives_tests(client, time):
    assert client.get("/count").json() == 0
    assert client.post("/users/a").json() == 1
    assert client.get("/count").json() == 1


@pytest.mark.parametrize("time", [1, 2])
@pytest.mark.asyncio
async def test_an_asynchronous_one(async_client, time):
    assert (await async_client.get("/count")).json() == 0
    assert (await async_client.post("/users/a")).json() == 1
    assert (await async_client.get("/count")).json() == 1


@pytest.mark.stillroom(isolation="clone")
def test_with_a_database_of_its_own(client):
    assert client.get("/count").json() == 0
    assert client.post("/users/a").json() == 1
    assert client.get("/count").json() == 1


def test_the_names_of_the_project_win(session):
    assert session == "mine"
"""

NARROW = """
import pytest
from application import app as the_app
from fastapi import FastAPI


@pytest.fixture
def app(request):
    app = FastAPI(title=request.node.name)
    app.include_router(the_app.router)
    return app


def test_one(client):
    assert client.app.title == "test_one"
    assert client.post("/users/a").json() == 1


def test_two(client):
    assert client.app.title == "test_two"
    assert client.post("/users/a").json() == 1
"""

UNNAMED = """
def test_client(client): pass
"""


def test_each_fixture_in_a_service_on_the_library(project: Project) -> None:
    """One application for the run, used by tests in many loops, and the manager it is built on."""
    project.set(app="application:init_app", manager="application:sessionmanager")
    project.write(application=SERVICE, test_all=ALL)

    outcome = project.run()

    assert outcome.counts == "21 passed", outcome.output


def test_the_application_is_replaced_by_one_fixture(project: Project) -> None:
    """Of the session's scope, with a pool that outlives tests, or new for each test.

    What a project calls client or session itself is its own.
    """
    project.write(conftest=OVERRIDING, test_wide=WIDE, test_narrow=NARROW)

    outcome = project.run()

    assert outcome.counts == "8 passed", outcome.output


def test_an_application_without_a_name(project: Project) -> None:
    """The error says which setting is missing, and what stands in it, or what else to do."""
    project.set(app="")
    project.write(test_unnamed=UNNAMED)

    outcome = project.run()

    assert outcome.counts == "1 error", outcome.output
    assert "stillroom_app = run:server" in outcome.output


def test_an_application_by_a_wrong_name(project: Project) -> None:
    """The error repeats the setting."""
    project.set(app="application:server")
    project.write(test_unnamed=UNNAMED)

    outcome = project.run()

    assert outcome.counts == "1 error", outcome.output
    assert "stillroom_app is 'application:server', which is nothing" in outcome.output
