"""The plugin, in projects that know nothing of Stillroom: their own models, engine and fixtures."""

import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = """
[pytest]
stillroom = true
stillroom_metadata = models:Base.metadata
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""

MODELS = """
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)


# It leads nowhere: a connection to what the URL names would be an error.
engine = create_async_engine("postgresql+asyncpg://production:secret@database.invalid/production")
Session = async_sessionmaker(engine, expire_on_commit=False)
"""

APPLICATION = """
from fastapi import Depends, FastAPI
from models import Session, User
from sqlalchemy import select

app = FastAPI()


async def get_session():
    async with Session() as session:
        yield session


@app.post("/users/{email}")
async def add(email: str, session=Depends(get_session)):
    user = User(email=email)
    session.add(user)
    await session.commit()
    return user.id


@app.get("/users")
async def get_all(session=Depends(get_session)):
    return list(await session.scalars(select(User.email).order_by(User.id)))
"""

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


def run(folder: Path, tests: str, *arguments: str, mode: str = "strict") -> tuple[str, str]:
    """Run pytest on a project in a process of its own; return the last line and all of it."""
    files = {"pytest.ini": SETTINGS.format(mode=mode), "models.py": MODELS}
    files |= {"application.py": APPLICATION, "test_project.py": tests}
    for name, text in files.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    answer = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    output = answer.stdout + answer.stderr
    return answer.stdout.strip().splitlines()[-1].partition(" in ")[0], output


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_a_project_needs_two_lines(tmp_path: Path, mode: str) -> None:
    """With the two lines of settings all styles of tests pass, with data of wider scopes."""
    last, output = run(tmp_path, TESTS + SEEDED, mode=mode)

    assert last == "9 passed", output


def test_the_same_suite_passes_on_clones(tmp_path: Path) -> None:
    """The option gives each test a database of its own, with real commits."""
    last, output = run(tmp_path, TESTS, "--stillroom-isolation=clone")

    assert last == "7 passed", output


def test_a_refusal_fails_its_test(tmp_path: Path) -> None:
    """Also one that was passed over; who expects it asks for the fixture."""
    last, output = run(tmp_path, FORGETFUL)

    assert last == "2 failed, 1 passed", output
    assert output.count("Was a commit() forgotten") >= 2


def test_a_budget_of_queries_names_the_n_plus_one(tmp_path: Path) -> None:
    """A test over its budget fails with the statement, its count and the line that sent it."""
    last, output = run(tmp_path, GREEDY)

    assert last == "1 failed, 1 passed", output
    assert "5 queries, at most 3 were allowed" in output
    assert "N+1" in output
    assert "test_project.py:9" in output
    assert "SQL that the test sent" in output


def test_repeated_statements_may_be_forbidden(tmp_path: Path) -> None:
    """The option holds for all tests, whether they have a budget or not."""
    last, output = run(tmp_path, GREEDY, "--stillroom-max-repeats=4")

    assert last == "2 failed", output


def test_the_marker_is_read_strictly(tmp_path: Path) -> None:
    """A marker that says nothing is an error that says how to write it."""
    tests = "import pytest\n\n@pytest.mark.stillroom\ndef test_one(): pass\n"
    _, output = run(tmp_path, tests)

    assert 'write @pytest.mark.stillroom(isolation="clone")' in output


def test_an_inactive_plugin_costs_nothing(tmp_path: Path) -> None:
    """Without the setting neither SQLAlchemy nor the library's parts are imported."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_one.py").write_text(
        "import sys\n\n\ndef test_one():\n"
        "    assert not {'sqlalchemy', 'asyncpg', 'stillroom.testing'} & sys.modules.keys()\n"
        "    assert 'stillroom.pytest_plugin' in sys.modules\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert "1 passed" in answer.stdout, answer.stdout
