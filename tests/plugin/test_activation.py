"""When the plugin does something, and to which server it goes."""

import asyncio
import os
import re
import signal
from typing import Any, cast

import asyncpg
import pytest

from tests.conftest import NewDatabase
from tests.plugin import styles
from tests.projects import Project

ELSEWHERE = """
import pytest
from models import Session, User
from sqlalchemy import func, select

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def add(email):
    async with Session() as session:
        session.add(User(email=email))
        await session.commit()
        return await session.scalar(select(func.count(User.id)))


async def test_before():
    assert await add("before") == 1


@pytest.mark.parametrize("time", [1, 2])
async def test_with_a_fixture(stillroom_url, time):
    assert await add("inside") == 1


async def test_between():
    assert await add("between") == 2


@pytest.mark.stillroom(isolation="clone")
async def test_with_a_database_of_its_own(stillroom_queries):
    assert await add("inside") == 1


async def test_after():
    assert await add("after") == 3
"""

UNTOUCHED = """
import sys


def test_one():
    assert not {"sqlalchemy", "asyncpg", "stillroom.testing"} & sys.modules.keys()
    assert "stillroom.pytest_plugin" in sys.modules
"""

CONNECTING = """
import asyncio

from checks import check


def test_one():
    asyncio.run(check())
"""

IDLE = """
import pytest


@pytest.mark.parametrize("time", range(5))
def test_nothing(time): pass


def test_a_client_that_asks_nothing(client):
    assert client.get("/nowhere").status_code == 404
"""

ASKING = """
import asyncio

from checks import check


def test_asking(stillroom_url):
    asyncio.run(check())
    assert "this" == "that"
"""

LATE = """
def test_late(request):
    request.getfixturevalue("stillroom_url")


def test_other(stillroom_url):
    pass
"""

WATCHING = """
import sys
from pathlib import Path


def pytest_unconfigure():
    if "stillroom.testing.run" in sys.modules:
        Path("launched").touch()
"""

TRAPS = {
    "DB_CONFIG": "postgresql://production@database.invalid/production",
    "DB_HOST": "database.invalid",
    "DATABASE_URL": "postgresql://production@database.invalid/production",
    "PGHOST": "database.invalid",
    "PGPORT": "1",
    "PGDATABASE": "production",
    "PGUSER": "production",
    "PGPASSWORD": "secret",
    "PGSSLMODE": "require",
}
"""What says where production is."""


def test_an_inactive_plugin_costs_nothing(project: Project) -> None:
    """Without the setting neither SQLAlchemy nor the library's parts are imported."""
    (project.folder / "pytest.ini").write_text("[pytest]\n")
    project.write(test_project=UNTOUCHED)

    outcome = project.run()

    assert outcome.counts == "1 passed", outcome.output


def test_a_fixture_makes_it_active_for_its_test_alone(
    project: Project, new_database: NewDatabase
) -> None:
    """All other tests of the run go where the URLs of their engines say, by the same pool."""
    url = new_database()
    _ask(url, "CREATE TABLE users (id serial PRIMARY KEY, email text UNIQUE)")
    _deactivate(project)
    models = (project.folder / "models.py").read_text()
    trap = "postgresql+asyncpg://production:secret@database.invalid/production"
    project.write(
        models=models.replace(trap, url.replace("postgresql:", "postgresql+asyncpg:")),
        test_elsewhere=ELSEWHERE,
    )

    outcome = project.run()

    assert outcome.counts == "6 passed", outcome.output
    rows = _ask(url, "SELECT email FROM users ORDER BY id")
    assert [email for (email,) in rows] == ["before", "between", "after"]


def test_no_variable_of_production_is_used(project: Project) -> None:
    """Neither DB_* nor what libpq reads says where a test goes."""
    project.write(checks=styles.CHECKS, test_one=CONNECTING)

    outcome = project.run(**TRAPS)

    assert outcome.counts == "1 passed", outcome.output


def test_tests_without_a_database_pay_nothing(project: Project) -> None:
    """No test that sends no statement is counted, or has one sent for it."""
    project.write(checks=styles.CHECKS, test_one=CONNECTING, test_idle=IDLE)

    outcome = project.run()

    assert outcome.counts == "7 passed", outcome.output
    assert "): 1 test in the sandbox" in outcome.output


def test_a_run_without_a_database_builds_no_tables(project: Project) -> None:
    """Not even the name of the metadata is looked at, nor is anything said."""
    settings = (project.folder / "pytest.ini").read_text().replace("models:Base", "nowhere:Base")
    (project.folder / "pytest.ini").write_text(settings)
    project.write(test_idle=IDLE)

    outcome = project.run()

    assert outcome.counts == "6 passed", outcome.output
    assert "PostgreSQL" not in outcome.output


def test_processes_of_an_inactive_project_have_servers_of_their_own(project: Project) -> None:
    """Each process of pytest-xdist that needs one; what it says at its end is said."""
    _deactivate(project)
    project.write(checks=styles.CHECKS, test_asking=ASKING, test_one="def test_one(): pass")

    outcome = project.run("-n", "2", "--dist", "loadfile", "--stillroom-keep")

    kills = re.findall(r"It stays until: kill -INT (\d+)", outcome.output)
    for pid in kills:
        os.kill(int(pid), signal.SIGINT)
    assert "1 failed, 1 passed" in outcome.output, outcome.output
    assert outcome.output.count("The database of test_asking.py::test_asking is left") == 1
    assert len(kills) == 1


def test_a_fixture_that_is_asked_for_late_is_an_error(project: Project) -> None:
    """A test that does not name it has no database of the run, whether others have one or not."""
    _deactivate(project)
    project.write(test_late=LATE)

    for options in (["-k", "late"], []):
        outcome = project.run(*options)

        assert "1 failed" in outcome.counts, outcome.output
        assert "stillroom_url was asked for by request.getfixturevalue" in outcome.output


@pytest.mark.parametrize(
    "option",
    ["--fixtures", "--fixtures-per-test", "--markers", "--setup-plan", "--cache-show"],
)
def test_a_look_at_the_project_starts_no_server(project: Project, option: str) -> None:
    """Pytest runs no test with such an option."""
    project.write(conftest=WATCHING, test_one="def test_one(stillroom_url): pass")

    outcome = project.run(option)

    assert outcome.code == 0, outcome.output
    assert not (project.folder / "launched").exists()


def _deactivate(project: Project) -> None:
    path = project.folder / "pytest.ini"
    other = "asyncio_default_fixture_loop_scope = function"
    path.write_text(path.read_text().replace("stillroom = true", other))


def _ask(url: str, sql: str) -> list[Any]:
    async def ask() -> list[Any]:
        connection = await cast("Any", asyncpg).connect(url)
        try:
            return list(await connection.fetch(sql))
        finally:
            await connection.close()

    return asyncio.run(ask())
