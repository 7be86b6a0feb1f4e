"""What a run says: the SQL of a test that has failed, and a line about the database."""

import re

import pytest

from tests.projects import Project

TESTS = """
import asyncio

import pytest
from models import Session, User


async def add(email):
    async with Session() as session:
        session.add(User(email=email))
        await session.commit()


@pytest.fixture
def fails_at_once():
    asyncio.run(add("setup"))
    raise ValueError("setup")


@pytest.fixture
def fails_at_the_end():
    yield
    asyncio.run(add("teardown"))
    raise ValueError("teardown")


def test_setup(fails_at_once):
    pass


def test_teardown(fails_at_the_end):
    pass


def test_synchronous_client(client):
    client.post("/users/a")
    assert False


def test_without_sql():
    assert False


def test_passes():
    asyncio.run(add("passes"))
"""

SENT = r"1 query, [\d.]+ ms\n\n *BEGIN\n *[\d.]+ ms  INSERT INTO users .*\n *{line} .*\n *COMMIT"
SUMMARY = r"^PostgreSQL \d+\.\d+ \({origin}\): 4 tests in the sandbox, isolation [\d.]+ ms each$"


@pytest.mark.parametrize("arguments", [[], ["-n", "2"]])
def test_the_sql_of_each_failure_is_shown(project: Project, arguments: list[str]) -> None:
    """In setup, call and teardown, with its times and the line that sent it; on any process."""
    project.write(test_project=TESTS)

    output = project.run(*arguments).output

    for title, line in {
        "ERROR at setup of test_setup": r"test_project.py:11",
        "ERROR at teardown of test_teardown": r"test_project.py:11",
        "test_synchronous_client": r"application.py:18",
    }.items():
        section = output.partition(f" {title} ")[2].partition("\n____")[0]
        assert re.search(SENT.format(line=line), section), output
    assert output.count("SQL that the test sent") == 3, output
    assert re.search(SUMMARY.format(origin="private, .*"), output, re.MULTILINE), output


def test_who_wants_no_failures_shown_sees_the_summary(project: Project) -> None:
    """The line stands where pytest is told to be verbose or short, and names a given server."""
    project.write(test_project=TESTS)

    output = project.run("--tb=no", "-v").output

    assert "SQL that the test sent" not in output
    assert re.search(SUMMARY.format(origin="private, .*"), output, re.MULTILINE), output


def test_a_run_without_a_database_has_no_summary(project: Project) -> None:
    """There is nothing to say of a server that no test has used."""
    project.write(test_project="def test_one(): pass\n")

    outcome = project.run()

    assert outcome.counts == "1 passed", outcome.output
    assert "PostgreSQL" not in outcome.output
