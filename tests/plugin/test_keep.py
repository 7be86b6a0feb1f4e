"""`--stillroom-keep`: the database of a test that has failed, for somebody to look at."""

import re
import shlex
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from stillroom.postgres import Cluster
from tests.processes import eventually
from tests.projects import Outcome, Project

TESTS = """
import asyncio

import pytest
from models import Session, User


async def add(*emails):
    async with Session() as session:
        session.add_all(User(email=email) for email in emails)
        await session.commit()


@pytest.fixture(scope="module")
def seeded():
    asyncio.run(add("of the module"))


@pytest.fixture
def fixture(seeded):
    asyncio.run(add("of the fixture"))
    yield
    asyncio.run(add("of its end"))


def test_before(seeded):
    asyncio.run(add("of another test"))


def test_fails(fixture):
    async def work():
        await add("of the test")
        async with Session() as session:
            session.add(User(email="uncommitted"))
            await session.flush()
            assert False

    asyncio.run(work())


def test_after(seeded):
    asyncio.run(add("of a test that never runs"))
"""

COMMITTED = ["of the module", "of the fixture", "of the test"]


class Left:
    """What the lines of a run name: the command that reads a database, and the one that ends it."""

    def __init__(self, project: Project, outcome: Outcome) -> None:
        self._project = project
        self.psql = self._find(
            r"^The database of test_project.py::test_fails is left: (.*)$", outcome
        )
        self.ending = self._find(r"^It stays until: (.*)$", outcome)

    def emails(self) -> list[str]:
        """Read the table by the command that was printed."""
        rows = self._run(f"{self.psql} -At -c 'TABLE users ORDER BY id'").splitlines()
        return [row.partition("|")[2] for row in rows]

    def end(self) -> None:
        """Run the other command that was printed."""
        self._run(self.ending)

    @property
    def socket_folder(self) -> Path:
        """Return the folder of a private server's socket."""
        return Path(parse_qs(urlsplit(shlex.split(self.psql)[-1]).query)["host"][0])

    def _run(self, command: str) -> str:
        environ = self._project.environ()
        return subprocess.run(
            ["sh", "-c", command], env=environ, capture_output=True, text=True, check=True
        ).stdout

    @staticmethod
    def _find(pattern: str, outcome: Outcome) -> str:
        found = re.search(pattern, outcome.output, re.MULTILINE)
        assert found is not None, outcome.output
        return found[1]


@pytest.fixture
def given_url(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the URL of a server that others use too, and psql a place on the path."""
    folder = Path(cluster.psql_command("")[0]).parent
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return cluster.url("postgres")


@pytest.mark.parametrize(
    ("arguments", "emails"),
    [
        (["--stillroom-isolation=sandbox"], COMMITTED),
        (["--stillroom-isolation=clone", "-n", "2"], [*COMMITTED, "of its end"]),
    ],
)
def test_a_private_server_runs_on(
    project: Project, arguments: list[str], emails: list[str]
) -> None:
    """The first failure ends the run; what was committed is there until the server is stopped.

    The fixtures of the test end as ever; what they commit is kept by a database of its own alone.
    """
    project.write(test_project=TESTS)

    outcome = project.run("--stillroom-keep", *arguments)

    left = Left(project, outcome)
    try:
        assert "1 failed" in outcome.counts, outcome.output
        assert "error" not in outcome.counts, outcome.output
        assert "stopping at a test that has failed: --stillroom-keep" in outcome.output
        assert left.emails() == emails
    finally:
        left.end()
    assert eventually(lambda: not left.socket_folder.exists())


def test_a_given_server_keeps_the_database(project: Project, given_url: str) -> None:
    """Later runs on the server let it be; the command that ends it drops this database alone."""
    project.write(test_project=TESTS)
    server = {"STILLROOM_TEST_URL": given_url}

    left = Left(project, project.run("--stillroom-keep", "-n", "2", **server))
    later = project.run("-k", "before", **server)

    assert later.counts == "1 passed, 2 deselected", later.output
    assert left.emails() == COMMITTED
    left.end()
    with pytest.raises(subprocess.CalledProcessError):
        left.emails()


def test_a_test_without_a_database_has_none_to_keep(project: Project) -> None:
    """Its failure ends the run, and no server is left."""
    project.write(test_project="def test_one(): assert False\n\n\ndef test_two(): pass\n")

    outcome = project.run("--stillroom-keep")

    assert outcome.counts == "1 failed", outcome.output
    assert "is left" not in outcome.output
