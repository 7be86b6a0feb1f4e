"""Tests in every style that a project may have; each begins with nothing and commits."""

CHECKS = '''
import asyncio

from application import app
from models import Session, User
from models import engine as module_engine
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession


async def check(engine=module_engine, before=0):
    """See no row of another test, commit by many connections at once, and see all of that."""
    async with AsyncSession(engine) as session:
        assert await session.scalar(select(func.count(User.id))) == before
    numbers = await asyncio.gather(*(add(engine, f"{number}@check") for number in range(8)))
    assert sorted(numbers) == list(range(before + 1, before + 9))
    async with AsyncSession(engine) as session:
        assert await session.scalar(select(func.count(User.id))) == before + 8


async def add(engine, email):
    async with AsyncSession(engine, expire_on_commit=False) as session:
        session.add(user := User(email=email))
        await session.commit()
        return user.id


def check_client(client):
    assert client.get("/users").json() == []
    assert client.post("/users/a").json() == 1
    assert client.get("/users").json() == ["a"]


async def check_async_client(client):
    assert (await client.get("/users")).json() == []
    assert sorted(
        answer.json()
        for answer in await asyncio.gather(*(client.post(f"/users/{n}") for n in range(8)))
    ) == list(range(1, 9))
    assert len((await client.get("/users")).json()) == 8
'''

ASYNCIO = """
import pytest
import pytest_asyncio
from checks import add, check, module_engine
from sqlalchemy.ext.asyncio import create_async_engine

TWICE = pytest.mark.parametrize("time", [1, 2])


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def warm():
    engine = create_async_engine("postgresql+asyncpg://nobody@database.invalid/production")
    connections = [await engine.connect() for _ in range(3)]
    for connection in connections:
        await connection.close()
    yield engine
    await engine.dispose()


@pytest_asyncio.fixture
async def one_user():
    return await add(module_engine, "fixture")


@TWICE
@pytest.mark.asyncio
async def test_function_loop(warm, time):
    await check(warm)


@TWICE
@pytest.mark.asyncio(loop_scope="module")
async def test_module_loop(warm, time):
    await check(warm)


@TWICE
@pytest.mark.asyncio(loop_scope="session")
async def test_session_loop(warm, time):
    await check(warm)


@pytest.mark.asyncio(loop_scope="class")
class TestClassLoop:
    @TWICE
    async def test_first(self, warm, time):
        await check(warm)

    @TWICE
    async def test_second(self, time):
        await check()


@TWICE
@pytest.mark.asyncio
async def test_a_fixture_writes_for_its_test(one_user, time):
    assert one_user == 1
    await check(before=1)


@pytest.mark.asyncio
@pytest.mark.skip
async def test_skipped():
    await check()


@pytest.mark.asyncio
@pytest.mark.xfail(strict=True)
async def test_expected_to_fail():
    await check()
    raise AssertionError


@pytest.mark.asyncio
async def test_after_one_that_failed():
    await check()
"""

POLICY = """
import asyncio

import pytest
import uvloop
from checks import check, check_async_client

pytestmark = pytest.mark.filterwarnings("ignore:.*event_loop_policy:DeprecationWarning")


@pytest.fixture(scope="module")
def event_loop_policy():
    return uvloop.EventLoopPolicy()


@pytest.mark.asyncio
async def test_uvloop(async_client):
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
    await check_async_client(async_client)


@pytest.mark.asyncio(loop_scope="module")
async def test_uvloop_of_the_module():
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
    await check()
"""

FACTORIES = """
import asyncio

import uvloop


def pytest_asyncio_loop_factories():
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
"""

FACTORY = """
import asyncio

import pytest
from checks import check


@pytest.mark.asyncio
async def test_each_loop():
    await check()
"""

ANYIO = """
import asyncio

import pytest
import uvloop
from checks import add, check, check_async_client, module_engine

pytestmark = pytest.mark.anyio


@pytest.fixture(
    scope="module",
    params=[("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})],
    ids=["asyncio", "uvloop"],
)
def anyio_backend(request):
    return request.param


@pytest.fixture
async def one_user(anyio_backend):
    return await add(module_engine, "fixture")


async def test_anyio(anyio_backend):
    is_uvloop = isinstance(asyncio.get_running_loop(), uvloop.Loop)
    assert is_uvloop == anyio_backend[1]["use_uvloop"]
    await check()


async def test_a_fixture_of_anyio(one_user):
    assert one_user == 1
    await check(before=1)


async def test_the_client_of_the_plugin(async_client):
    await check_async_client(async_client)
"""

SYNCHRONOUS = """
import asyncio
import unittest

import httpx2
import pytest
from application import app
from checks import check, check_async_client, check_client, module_engine, add
from fastapi.testclient import TestClient
from hypothesis import given, settings, strategies


@pytest.mark.parametrize("time", [1, 2])
def test_a_client_with_a_lifespan(time):
    with TestClient(app) as client:
        check_client(client)


@pytest.mark.parametrize("time", [1, 2])
def test_a_client_without(time):
    check_client(TestClient(app))


def test_the_client_of_the_plugin(client):
    check_client(client)


def test_a_loop_of_its_own():
    asyncio.run(check())


def test_a_client_of_httpx_in_a_loop_of_its_own():
    async def talk():
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
            await check_async_client(client)

    asyncio.run(talk())


class TestOfUnittest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.assertEqual(await add(module_engine, "setup"), 1)

    async def test_first(self):
        await check(before=1)

    async def test_second(self):
        await check(before=1)


seen = []


@settings(max_examples=5, deadline=None, database=None)
@given(email=strategies.uuids())
def test_examples_share_the_database_of_their_test(email):
    client = TestClient(app)
    seen.append(str(email))
    client.post(f"/users/{email}")
    assert client.get("/users").json()[0] == seen[0]  # of the first example, and so is each


@pytest.mark.asyncio
@settings(max_examples=5, deadline=None, database=None)
@given(number=strategies.integers(0, 1000))
async def test_asynchronous_examples_too(number):
    await add(module_engine, f"{number}.{len(examples)}")
    examples.append(number)
    async with module_engine.connect() as connection:
        rows = (await connection.exec_driver_sql("SELECT count(*) FROM users")).scalar()
    assert rows == len(examples)


examples = []
"""
