"""A project whose settings, environment and code lead to production, and whose tests do not."""

from tests.projects import MODELS, Project
from tests.testing.trap import set_trap

TESTS = """
import os

import psycopg
import pytest
from asyncpg import connect
from models import Session, User, engine
from sqlalchemy import create_engine, select, text
from sqlalchemy.ext.asyncio import create_async_engine

PRODUCTION = os.environ["DB_CONFIG"]
WHERE = text("SELECT current_database()")


@pytest.mark.asyncio
async def test_engine():
    async with Session() as session:
        session.add(User(email="a"))
        await session.commit()
        assert list(await session.scalars(select(User.id))) == [1]


@pytest.mark.asyncio
async def test_asyncpg():
    await connect(PRODUCTION, timeout=2)  # stray


@pytest.mark.asyncio
async def test_asyncpg_of_the_environment():
    await connect(timeout=2)  # stray


def test_psycopg():
    psycopg.connect(PRODUCTION, connect_timeout=2)  # stray


def test_swallowed_psycopg():
    try:
        psycopg.connect(PRODUCTION, connect_timeout=2)  # stray
    except Exception:
        pass


def test_swallowed_engine_of_psycopg():
    try:
        create_engine(PRODUCTION.replace("://", "+psycopg://")).connect()  # stray
    except Exception:
        pass


@pytest.mark.asyncio
async def test_creator():
    other = create_async_engine("postgresql+asyncpg://", async_creator=lambda: connect(PRODUCTION))
    await other.connect()  # stray


@pytest.mark.asyncio
async def test_engine_again():
    await test_engine()


def test_expected(stillroom_refusals):
    with pytest.raises(Exception):
        psycopg.connect(PRODUCTION, connect_timeout=2)
    assert "database production" in str(stillroom_refusals()[0])


def test_other_database(stillroom_new_database):
    url = stillroom_new_database()
    with psycopg.connect(url) as connection:
        assert url.split("?")[0].endswith(connection.info.dbname)


@pytest.mark.stillroom(isolation="clone")
@pytest.mark.asyncio
async def test_clone(stillroom_url):
    name = stillroom_url.split("?")[0].rpartition("/")[2]
    connection = await connect(stillroom_url)
    assert await connection.fetchval(WHERE.text) == name
    await connection.close()
    async with Session() as session:
        assert await session.scalar(WHERE) == name
        session.add(User(email="a"))
        await session.commit()
    with psycopg.connect(stillroom_url) as plain:
        assert plain.execute("SELECT count(*) FROM users").fetchone() == (1,)
    by_libpq = create_engine(PRODUCTION.replace("://", "+psycopg://"))
    with by_libpq.connect() as plain:
        assert plain.scalar(WHERE) == name
    by_libpq.dispose()
    by_libpq = create_async_engine(PRODUCTION.replace("://", "+psycopg://"))
    async with by_libpq.connect() as plain:
        assert await plain.scalar(WHERE) == name
    await by_libpq.dispose()
"""


def test_nothing_reaches_production(project: Project) -> None:
    """By no engine and no driver; each attempt fails its own test, and names its line."""
    with set_trap() as trap:
        project.set()
        leads_nowhere = "postgresql+asyncpg://production:secret@database.invalid/production"
        project.write(
            models=MODELS.replace(leads_nowhere, trap.url("+asyncpg")), test_project=TESTS
        )
        outcome = project.run(
            "-rf",
            DB_CONFIG=trap.url(),
            DB_HOST=f"127.0.0.1:{trap.port}",
            PGHOST="127.0.0.1",
            PGPORT=str(trap.port),
            PGUSER="nobody",
            PGDATABASE="production",
        )

    assert outcome.counts == "6 failed, 5 passed", outcome.output
    failed = [line for line in outcome.output.splitlines() if line.startswith("FAILED")]
    assert [line.split("::")[1].split()[0] for line in failed] == [
        "test_asyncpg",
        "test_asyncpg_of_the_environment",
        "test_psycopg",
        "test_swallowed_psycopg",
        "test_swallowed_engine_of_psycopg",
        "test_creator",
    ]
    lines = TESTS.splitlines()
    for number in (number for number, line in enumerate(lines, 1) if line.endswith("# stray")):
        assert f"test_project.py:{number} " in outcome.output
    assert outcome.output.count("secret") == 0
