"""The plugin, in projects that know nothing of Stillroom: their own models, engine and fixtures."""

import pytest

from tests.plugin import styles
from tests.projects import Project

TESTS = """
import asyncio

import httpx2
import pytest
import pytest_asyncio
from application import app
from fastapi.testclient import TestClient
from models import Session, User


@pytest_asyncio.fixture
async def client():
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


@pytest.fixture(scope="module")
def seeded():
    async def seed():
        async with Session() as session:
            session.add(User(email="seed"))
            await session.commit()

    asyncio.run(seed())


@pytest.mark.asyncio
@pytest.mark.parametrize("time", [1, 2])
async def test_each_test_begins_with_nothing(client, time):
    assert (await client.post("/users/a")).json() == 1
    assert (await client.get("/users")).json() == ["a"]


@pytest.mark.asyncio
async def test_many_requests_run_at_once(client):
    await asyncio.gather(*(client.post(f"/users/{number}") for number in range(30)))
    assert len((await client.get("/users")).json()) == 30


@pytest.mark.parametrize("time", [1, 2])
def test_a_synchronous_client_with_a_lifespan(time):
    with TestClient(app) as client:
        assert client.post("/users/a").json() == 1
        assert client.get("/users").json() == ["a"]


def test_a_synchronous_client_without():
    client = TestClient(app)
    assert client.post("/users/a").json() == 1
    assert client.get("/users").json() == ["a"]


@pytest.mark.stillroom(isolation="clone")
@pytest.mark.asyncio
async def test_a_database_of_its_own(client):
    assert (await client.post("/users/a")).json() == 1
    assert (await client.get("/users")).json() == ["a"]
"""

SEEDED = """

@pytest.mark.parametrize("time", [1, 2])
def test_what_a_module_has_seeded_is_there_in_each_test(seeded, time):
    client = TestClient(app)
    assert client.post("/users/a").json() == 2
    assert client.get("/users").json() == ["seed", "a"]
"""

FORGETFUL = """
import asyncio

import pytest
from models import Session, User
from sqlalchemy import select


async def read_beside_an_open_write():
    async with Session() as writer, Session() as reader:
        writer.add(User(email="a"))
        await writer.flush()
        await reader.scalars(select(User))


@pytest.mark.asyncio
async def test_forgetful():
    await read_beside_an_open_write()


@pytest.mark.asyncio
async def test_swallowed():
    with pytest.raises(Exception):
        await read_beside_an_open_write()


@pytest.mark.asyncio
async def test_expected(stillroom_refusals):
    with pytest.raises(Exception):
        await read_beside_an_open_write()
    assert "Was a commit() forgotten" in str(stillroom_refusals()[0])


@pytest.mark.asyncio
async def test_answers_something_else():
    status = 200
    try:
        await read_beside_an_open_write()
    except Exception:
        status = 500
    assert status == 200


def test_after_them():
    pass


@pytest.fixture
def at_the_end():
    yield
    try:
        asyncio.run(read_beside_an_open_write())
    except Exception:
        pass


def test_swallowed_at_the_end(at_the_end):
    pass


def test_after_that():
    pass
"""

GREEDY = """
import pytest
from models import Session, User


async def read_one_by_one():
    async with Session() as session:
        for number in range(5):
            await session.get(User, number)


@pytest.mark.asyncio
async def test_budget(queries):
    with queries.at_most(3):
        await read_one_by_one()


@pytest.mark.asyncio
async def test_within_budget(queries):
    with queries.exactly(5):
        await read_one_by_one()
"""


COROUTINES = """
import asyncio

import pytest
from checks import check
from hypothesis import given, settings, strategies


async def test_plain():
    await check()


class TestMethods:
    async def test_method(self):
        await check()

    @staticmethod
    async def test_static_method():
        await check()


@settings(max_examples=2, deadline=None)
@given(strategies.booleans())
async def test_examples(value):
    await asyncio.sleep(0)


@pytest.mark.asyncio(loop_scope="session")
async def test_with_a_marker():
    await check()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", [("asyncio", {"debug": True})])
async def test_of_anyio(request):
    assert asyncio.get_running_loop().get_debug()
    assert request.node.get_closest_marker("asyncio") is None
    await check()
"""


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_a_project_needs_two_lines(project: Project, mode: str) -> None:
    """With the two lines of settings all styles of tests pass, with data of wider scopes."""
    project.set(mode)
    project.write(test_project=TESTS + SEEDED)

    outcome = project.run()

    assert outcome.counts == "9 passed", outcome.output


def test_a_coroutine_needs_no_marker(project: Project) -> None:
    """Whichever way it is written; one of anyio has anyio's loop, with its options.

    Without pytest-asyncio it fails as it would without this plugin.
    """
    project.write(checks=styles.CHECKS, test_project=COROUTINES)

    outcome = project.run()
    alone = project.run("-p", "no:asyncio", "-W", "default", "-k", "plain")

    assert outcome.counts == "6 passed", outcome.output
    assert "1 failed, 5 deselected" in alone.counts, alone.output
    assert "not natively supported" in alone.output


def test_the_same_suite_passes_on_clones(project: Project) -> None:
    """The option gives each test a database of its own, with real commits."""
    project.write(test_project=TESTS + SEEDED)

    outcome = project.run("--stillroom-isolation=clone")

    assert outcome.counts == "9 passed", outcome.output


def test_a_refusal_fails_its_test(project: Project) -> None:
    """Also one that was passed over, in the test or at the end of a fixture; and no other test.

    Who expects one asks for the fixture.
    """
    project.write(test_project=FORGETFUL)

    outcome = project.run()

    assert outcome.counts == "3 failed, 4 passed, 1 error", outcome.output
    assert "Refused in this test" in outcome.output
    assert outcome.output.count("Was a commit() forgotten") >= 4


def test_a_budget_of_queries_names_the_n_plus_one(project: Project) -> None:
    """A test over its budget fails with the statement, its count and the line that sent it."""
    project.write(test_project=GREEDY)

    outcome = project.run()

    assert outcome.counts == "1 failed, 1 passed", outcome.output
    assert "5 queries, at most 3 were allowed" in outcome.output
    assert "N+1" in outcome.output
    assert "test_project.py:9" in outcome.output
    assert "SQL that the test sent" in outcome.output


def test_repeated_statements_may_be_forbidden(project: Project) -> None:
    """The option holds for all tests, whether they have a budget or not."""
    project.write(test_project=GREEDY)

    outcome = project.run("--stillroom-max-repeats=4")

    assert outcome.counts == "2 failed", outcome.output


def test_the_marker_is_read_strictly(project: Project) -> None:
    """A marker that says nothing fails its test alone, and says how to write it."""
    test = "import pytest\n\n@pytest.mark.stillroom\ndef test_one(): pass\n\ndef test_two(): pass\n"
    project.write(test_project=test)

    for processes in ("0", "2"):
        outcome = project.run("-n", processes)

        assert outcome.counts == "1 failed, 1 passed", outcome.output
        assert 'write @pytest.mark.stillroom(isolation="clone")' in outcome.output


BETWEEN = """
import threading

from test_project import add, run


def pytest_runtest_logfinish():
    thread = threading.Thread(target=run, args=[add("late")])
    thread.start()
    thread.join()
"""

GOING_ON = """
import asyncio

import pytest
from models import Session, User
from sqlalchemy import select


def run(work):
    return asyncio.run(work)


async def add(email):
    async with Session() as session:
        session.add(User(email=email))
        await session.commit()


async def emails():
    async with Session() as session:
        return list(await session.scalars(select(User.email)))


@pytest.fixture(scope="class")
def seeded():
    run(add("seed"))


def test_before():
    assert run(emails()) == []


@pytest.mark.usefixtures("seeded")
class TestSeeded:
    @pytest.mark.parametrize("time", [1, 2])
    def test_of_the_class(self, time):
        assert run(emails()) == ["seed"]


def test_after():
    assert run(emails()) == []
"""


@pytest.mark.parametrize("isolation", ["sandbox", "clone"])
def test_what_is_done_between_two_tests_is_of_none(project: Project, isolation: str) -> None:
    """A thread that has outlived its test writes into no wider scope, and hinders no fixture."""
    project.write(conftest=BETWEEN, test_project=GOING_ON)

    outcome = project.run(f"--stillroom-isolation={isolation}")

    assert outcome.counts == "4 passed", outcome.output


LATE = """
import asyncio

import pytest
from models import Session, User
from sqlalchemy import func, select


def run(work):
    return asyncio.run(work)


async def add(email):
    async with Session() as session:
        session.add(User(email=email))
        await session.commit()


async def count():
    async with Session() as session:
        return await session.scalar(select(func.count()).select_from(User))


@pytest.fixture(scope="session")
def wide():
    return run(count())


@pytest.fixture
def arranged(request):
    run(add("a"))
    assert request.getfixturevalue("wide") == 1


def test_first(arranged):
    assert run(count()) == 1


def test_second():
    assert run(count()) == 0
"""


@pytest.mark.parametrize("isolation", ["sandbox", "clone"])
def test_a_fixture_of_a_wider_scope_that_comes_late_undoes_nothing(
    project: Project, isolation: str
) -> None:
    """What a fixture of the test has committed stays when it asks for one of the session."""
    project.write(test_project=LATE)

    outcome = project.run(f"--stillroom-isolation={isolation}")

    assert outcome.counts == "2 passed", outcome.output
