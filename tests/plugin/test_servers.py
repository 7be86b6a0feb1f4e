"""Runs at the same time: on one server that both were given, and each on its own."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
from sqlalchemy import URL, make_url

from tests.conftest import NewDatabase
from tests.plugin import styles
from tests.processes import eventually
from tests.projects import MODELS, Project

MEETING = """
import asyncio
import os
import time
from pathlib import Path

import pytest
from checks import check
from models import Session, User
from sqlalchemy import func, select


def meet(place):
    Path(f"{place}.{os.getpid()}").touch()
    deadline = time.monotonic() + 60
    while len(list(Path().glob(f"{place}.*"))) < 2:
        assert time.monotonic() < deadline, "the other run did not come"
        time.sleep(0.01)


async def count():
    async with Session() as session:
        return await session.scalar(select(func.count(User.id)))


@pytest.mark.parametrize(
    "place",
    [
        "sandbox",
        pytest.param("clone", marks=pytest.mark.stillroom(isolation="clone")),
    ],
)
def test_what_is_there_is_of_this_run(place):
    meet(f"before_{place}")
    asyncio.run(check())
    meet(f"written_{place}")
    assert asyncio.run(count()) == 8
"""

WAITING = """
import asyncio
import time
from pathlib import Path

import pytest
from checks import check


@pytest.mark.stillroom(isolation="clone")
def test_it_is_killed():
    asyncio.run(check())
    Path("in_the_middle").touch()
    time.sleep(60)
"""

SIMPLE = """
import asyncio

from checks import check


def test_one():
    asyncio.run(check())


def test_two():
    asyncio.run(check())
"""


@pytest.fixture
def shared(new_database: NewDatabase) -> str:
    """Give the URL of a server, by a role that may create databases and nothing else."""
    url = make_url(new_database())
    role = f"tester_of_{url.database}"
    _ask(_show(url), f"CREATE ROLE {role} LOGIN CREATEDB")
    return _show(url.set(username=role))


def test_runs_on_a_shared_server_never_meet(project: Project, shared: str) -> None:
    """Both find their own rows alone, and clean up behind one that was killed.

    What is left is the template, which was built once, and what belongs to another role.
    """
    superuser = _show(make_url(shared).set(username="postgres"))
    _ask(superuser, "CREATE DATABASE stillroom_run_7_1")
    project.write(checks=styles.CHECKS, test_waiting=WAITING)
    killed = _start(project, STILLROOM_TEST_URL=shared)
    assert eventually((project.folder / "in_the_middle").exists, 60)
    killed.kill()
    killed.communicate()
    assert len(_databases(shared)) >= 2
    (template,) = _templates(shared)
    (project.folder / "test_waiting.py").unlink()
    project.write(test_meeting=MEETING)

    runs = [_start(project, "--stillroom-url", shared), _start(project, STILLROOM_TEST_URL=shared)]
    outputs = [run.communicate(timeout=120)[0] for run in runs]

    assert [run.returncode for run in runs] == [0, 0], "\n".join(outputs)
    assert "(--stillroom-url)" in outputs[0]
    assert "(STILLROOM_TEST_URL)" in outputs[1]
    assert _databases(shared) == ["stillroom_run_7_1"]
    assert _templates(shared) == [template]

    (project.folder / "test_meeting.py").unlink()
    project.write(test_simple=SIMPLE, models=MODELS + MORE)
    outcome = project.run("-n", "2", STILLROOM_TEST_URL=shared)
    assert outcome.counts == "2 passed", outcome.output
    assert len(_templates(shared)) == 2  # the first may be another project's


def test_runs_on_servers_of_their_own_never_meet(project: Project) -> None:
    """Two runs of one project at the same time, with nothing kept for them yet."""
    project = Project(project.folder, project.folder / "cache")
    project.write(checks=styles.CHECKS, test_meeting=MEETING)

    runs = [_start(project), _start(project)]
    outputs = [run.communicate(timeout=120)[0] for run in runs]

    assert [run.returncode for run in runs] == [0, 0], "\n".join(outputs)


def test_a_role_without_the_right_to_create(project: Project, shared: str) -> None:
    """Each test says what is missing, and how it is given."""
    url = make_url(shared)
    _ask(_show(url.set(username="postgres")), f"ALTER ROLE {url.username} NOCREATEDB")
    project.write(
        checks=styles.CHECKS, test_simple=SIMPLE, models=MODELS + MORE.replace("others", "more")
    )

    outcome = project.run(STILLROOM_TEST_URL=shared)

    assert outcome.counts == "2 failed", outcome.output
    assert "may not create databases: permission denied to create database" in outcome.output
    assert "ALTER ROLE its_name CREATEDB" in outcome.output


@pytest.mark.parametrize("isolation", ["sandbox", "clone"])
def test_a_server_that_is_away(project: Project, tmp_path: Path, isolation: str) -> None:
    """Each test says which server it was and who named it."""
    project.write(checks=styles.CHECKS, test_simple=SIMPLE)
    url = f"postgresql:///postgres?host={tmp_path}"

    outcome = project.run("--stillroom-url", url, f"--stillroom-isolation={isolation}")

    assert outcome.counts == "2 failed", outcome.output
    assert "The server of the tests (--stillroom-url) takes no connection" in outcome.output


def test_a_url_that_cannot_be_used(project: Project) -> None:
    """The run ends before the first test, with a line that names the variable."""
    project.write(test_simple=SIMPLE)

    outcome = project.run(STILLROOM_TEST_URL="mysql://localhost/tests")

    assert outcome.code == pytest.ExitCode.USAGE_ERROR, outcome.output
    assert "STILLROOM_TEST_URL, which names the server for the tests" in outcome.output
    assert "Traceback" not in outcome.output


MORE = """

class Another(Base):
    __tablename__ = "others"
    id: Mapped[int] = mapped_column(primary_key=True)
"""


def _show(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _start(project: Project, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        project.command(*arguments),
        cwd=project.folder,
        env=project.environ(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _databases(url: str) -> list[str]:
    """List what runs have on the server, whosever it is."""
    names = [name for (name,) in _ask(url, "SELECT datname FROM pg_database")]
    return [name for name in names if name.startswith("stillroom_run_")]


def _templates(url: str) -> list[str]:
    """List the templates of this role."""
    own = "SELECT datname FROM pg_database WHERE datistemplate AND datdba = current_user::regrole"
    return [name for (name,) in _ask(url, own)]


def _ask(url: str, sql: str) -> list[Any]:
    async def ask() -> list[Any]:
        connection = await cast("Any", asyncpg).connect(url)
        try:
            return list(await connection.fetch(sql))
        finally:
            await connection.close()

    return asyncio.run(ask())
