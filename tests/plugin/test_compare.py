"""`stillroom compare`: the same tests in both isolations."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.projects import Outcome, Project

TESTS = """
import asyncio

import pytest
from models import Session, User
from sqlalchemy import select


@pytest.fixture
def broken():
    raise ValueError("broken")


async def read_beside_an_open_write():
    async with Session() as writer, Session() as reader:
        writer.add(User(email="a"))
        await writer.flush()
        return list(await reader.scalars(select(User)))


def test_passed():
    pass


def test_failed():
    assert False, "in both"


@pytest.mark.skip(reason="in both")
def test_skipped():
    pass


def test_error(broken):
    pass


def test_forgetful():
    assert asyncio.run(read_beside_an_open_write()) == []
"""


def compare(project: Project, *arguments: str) -> Outcome:
    """Run the command; `counts` is the last line."""
    answer = subprocess.run(
        [Path(sys.executable).with_name("stillroom"), "compare", *arguments],
        cwd=project.folder,
        env=project.environ(),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    last = (answer.stdout.strip().splitlines() or [""])[-1]
    return Outcome(last, answer.stdout + answer.stderr, answer.returncode)


def test_what_differs_is_shown_test_by_test(project: Project) -> None:
    """Of each test that differs both outcomes are shown; the exit code says that one does."""
    project.write(test_project=TESTS)

    outcome = compare(project, "-p", "no:randomly", "--tb=no")

    assert (outcome.counts, outcome.code) == ("4 tests alike, 1 differs", 1), outcome.output
    shown = outcome.output.partition("\ntest_project.py::")[2].splitlines()
    assert shown[0] == "test_forgetful"
    assert shown[1].startswith("  In the sandbox: failed: sqlalchemy.exc.DBAPIError")
    assert "Was a commit() forgotten" in shown[1]
    assert shown[2] == "  On clones: passed"


def test_alike_is_a_success(project: Project) -> None:
    """Tests that fail in both are alike; the processes of pytest-xdist are heard too."""
    project.write(test_project=TESTS)

    outcome = compare(project, "-n", "2", "-k", "not forgetful")

    assert (outcome.counts, outcome.code) == ("4 tests alike, 0 differ", 0), outcome.output


@pytest.mark.parametrize(
    ("settings", "arguments", "reason"),
    [
        ("stillroom = true", ["--no-such-option"], "unrecognized arguments: --no-such-option"),
        ("stillroom = true", ["-k", "nothing"], "there are no tests"),
        ("", [], "pytest.ini does not say `stillroom = true`"),
    ],
)
def test_what_cannot_be_compared_is_said(
    project: Project, settings: str, arguments: list[str], reason: str
) -> None:
    """The exit code is then 2, there is a sentence and no traceback."""
    (project.folder / "pytest.ini").write_text(f"[pytest]\n{settings}\n")
    project.write(test_project="def test_one(): pass\n")

    outcome = compare(project, *arguments)

    assert outcome.code == 2, outcome.output
    assert reason in outcome.output
    assert "stillroom: Nothing was compared" in outcome.output
    assert "Traceback" not in outcome.output
