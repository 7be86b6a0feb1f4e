"""Databases of a test's own: what is in them, who may connect, and what becomes of them."""

from tests.plugin import styles
from tests.projects import Project

OWN = """
import asyncio
import subprocess
import sys

import psycopg
import pytest
import pytest_asyncio
from application import app
from checks import add, check, module_engine
from fastapi.testclient import TestClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

pytestmark = pytest.mark.stillroom(isolation="clone")
TWICE = pytest.mark.parametrize("time", [1, 2])
LOOK = '''
import psycopg
import sys

with psycopg.connect(sys.argv[1]) as connection:
    print(connection.execute("SELECT email FROM users").fetchone())
'''


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def warm():
    engine = create_async_engine("postgresql+asyncpg://nobody@database.invalid/production")
    connections = [await engine.connect() for _ in range(3)]
    for connection in connections:
        await connection.close()
    yield engine
    await engine.dispose()


@TWICE
@pytest.mark.asyncio(loop_scope="session")
async def test_a_warm_pool_of_the_session(warm, time):
    await check(warm)


@TWICE
@pytest.mark.asyncio
async def test_the_same_pool_in_another_loop(warm, time):
    await check(warm)


@TWICE
def test_psycopg_sees_what_was_committed(client, stillroom_url, time):
    assert client.post("/users/a").json() == 1
    with psycopg.connect(stillroom_url) as connection:
        assert connection.execute("SELECT email FROM users").fetchall() == [("a",)]
        connection.execute("INSERT INTO users (email) VALUES ('b')")
    assert client.get("/users").json() == ["a", "b"]


@TWICE
def test_another_process_sees_it_too(client, stillroom_url, time):
    client.post("/users/a")
    seen = subprocess.run(
        [sys.executable, "-c", LOOK, stillroom_url], capture_output=True, text=True, check=True
    )
    assert seen.stdout == "('a',)\\n"


@pytest.mark.asyncio
async def test_the_transactions_are_real():
    async with module_engine.connect() as one, module_engine.connect() as other:
        await one.execute(text("INSERT INTO users (email) VALUES ('a')"))
        assert (await other.execute(text("SELECT count(*) FROM users"))).scalar() == 0
        await one.commit()
        assert (await other.execute(text("SELECT count(*) FROM users"))).scalar() == 1


@pytest.mark.parametrize("time", range(30))
def test_many(time):
    asyncio.run(check())


@pytest.mark.asyncio
async def test_the_databases_of_earlier_tests_are_dropped():
    async with module_engine.connect() as connection:
        sql = "SELECT count(*) FROM pg_database WHERE datname LIKE 'stillroom_run_%'"
        assert (await connection.execute(text(sql))).scalar() < 30


big_engine = create_async_engine("postgresql+asyncpg://", pool_size=30)


@pytest.mark.parametrize("time", range(8))
@pytest.mark.asyncio
async def test_with_many_connections(time):
    connections = await asyncio.gather(*(big_engine.connect() for _ in range(30)))
    for connection in connections:
        await connection.close()


held = []


@TWICE
@pytest.mark.asyncio(loop_scope="session")
async def test_a_connection_that_was_kept_open_has_ended(time):
    assert all(connection.is_closed() for connection in held)
    async with module_engine.connect() as connection:
        held.append((await connection.get_raw_connection()).driver_connection)
    assert not held[-1].is_closed()


@pytest.fixture
def session_of_psycopg(database_url):
    with psycopg.connect(database_url.replace("+asyncpg", "")) as connection:
        yield connection


def test_a_connection_that_is_open_at_the_end_hinders_nobody(session_of_psycopg):
    session_of_psycopg.execute("INSERT INTO users (email) VALUES ('open')")
"""

SEEDED = """
import asyncio

import pytest
from checks import add, check, module_engine

TWICE = pytest.mark.parametrize("time", [1, 2])


@pytest.fixture(scope="session")
def of_the_session():
    asyncio.run(add(module_engine, "session"))
    yield
    asyncio.run(check(before=1))


@pytest.fixture(scope="module")
def of_the_module(of_the_session):
    asyncio.run(add(module_engine, "module"))
    yield
    asyncio.run(check(before=2))


@pytest.fixture(scope="class")
def of_the_class(of_the_module):
    asyncio.run(add(module_engine, "class"))
    yield
    asyncio.run(check(before=3))


@TWICE
def test_of_the_module(of_the_module, time):
    asyncio.run(check(before=2))


class TestClass:
    @TWICE
    def test_of_the_class(self, of_the_class, time):
        asyncio.run(check(before=3))


@TWICE
def test_after_the_class(of_the_session, time):
    asyncio.run(check(before=2))
"""


LEFT = """
import pytest
from checks import check, module_engine

pytestmark = pytest.mark.asyncio(loop_scope="session")
kept = []


async def test_that_leaves_its_connection():
    async with module_engine.connect() as connection:
        kept.append((await connection.get_raw_connection()).driver_connection)


@pytest.mark.stillroom(isolation="clone")
async def test_in_which_it_is_used():
    await kept[0].execute("INSERT INTO users (email) VALUES ('left')")
    await check()


async def test_that_comes_after():
    await check()
"""


def test_what_is_written_into_the_sandbox_beside_a_clone_goes_with_the_test(
    project: Project,
) -> None:
    """A thread or a task of an earlier test may do so, at any time."""
    project.write(checks=styles.CHECKS, test_left=LEFT)

    outcome = project.run()

    assert outcome.counts == "3 passed", outcome.output


def test_a_database_of_its_own_beside_the_sandbox(project: Project) -> None:
    """Real commits, which psycopg and other processes see, by pools that outlive the test."""
    project.write(checks=styles.CHECKS, test_own=OWN)

    outcome = project.run()

    assert outcome.counts == "51 passed", outcome.output
    assert "): 51 tests in databases of their own" in outcome.output


def test_what_wider_scopes_have_committed_is_in_each(project: Project) -> None:
    """What a fixture of the session, the module or the class writes, all tests in it have."""
    project.write(checks=styles.CHECKS, test_seeded=SEEDED)

    for isolation in ("sandbox", "clone"):
        outcome = project.run(f"--stillroom-isolation={isolation}")
        assert outcome.counts == "6 passed", outcome.output
