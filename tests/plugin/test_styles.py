"""Tests of any style, in any event loop: each begins with nothing, and nothing has to be set."""

import pytest

from tests.plugin import styles
from tests.projects import Project

DOCTESTS = '''
"""A module whose examples use the database.

>>> import asyncio
>>> from checks import check
>>> asyncio.run(check())
"""


def add():
    """Add a user.

    >>> import asyncio
    >>> from checks import check
    >>> asyncio.run(check())
    """
'''

ALL = {
    "test_asyncio": styles.ASYNCIO,
    "test_policy": styles.POLICY,
    "uv__conftest": styles.FACTORIES,
    "uv__test_factory": styles.FACTORY,
    "test_anyio": styles.ANYIO,
    "test_synchronous": styles.SYNCHRONOUS,
    "documented": DOCTESTS,
}
DOCTESTS_TOO = "addopts = --doctest-modules\n"
AUTO = """
import pytest
from checks import add, check, module_engine


@pytest.fixture(scope="module")
async def seeded():
    return await add(module_engine, "seed")


@pytest.mark.parametrize("time", [1, 2])
async def test_what_the_module_has_seeded_is_there(seeded, time):
    assert seeded == 1
    await check(before=1)


class TestMethods:
    async def test_with_a_fixture(self, seeded):
        await check(before=1)
"""

SOME_FAIL = """
import asyncio

from checks import check


def test_writes():
    asyncio.run(check())


def test_fails():
    asyncio.run(check())
    raise AssertionError


def test_writes_too():
    asyncio.run(check())
"""
COUNTS = "36 passed, 1 skipped, 1 xfailed"


@pytest.fixture
def styled(project: Project) -> Project:
    """Give a project with tests of all styles, in strict mode."""
    project.set(more=DOCTESTS_TOO)
    project.write(checks=styles.CHECKS, **ALL)
    return project


@pytest.mark.parametrize("isolation", ["sandbox", pytest.param("clone", marks=pytest.mark.full)])
def test_all_styles_in_one_run(styled: Project, isolation: str) -> None:
    """Whatever runs the loop, each test has what is its own.

    They are of pytest-asyncio with each scope of its loops, of anyio, on uvloop by each of its
    settings, with clients with and without a lifespan, of unittest and hypothesis, and doctests.
    """
    outcome = styled.run(f"--stillroom-isolation={isolation}")

    assert outcome.counts == COUNTS, outcome.output


@pytest.mark.parametrize(
    ("seed", "way"), [pytest.param("1", "load", marks=pytest.mark.full), ("2", "loadfile")]
)
def test_all_styles_in_any_order_in_two_processes(styled: Project, seed: str, way: str) -> None:
    """pytest-randomly and pytest-xdist: no test needs another one, or a process of its own."""
    order = ("-p", "randomly", f"--randomly-seed={seed}")

    outcome = styled.run("-n", "2", "--dist", way, *order)

    assert outcome.counts == COUNTS, outcome.output
    assert "37 tests in the sandbox" in outcome.output  # of both processes, and one line of them


def test_one_loop_for_all(project: Project) -> None:
    """In auto mode, with the loop of the session for tests and fixtures."""
    scopes = "asyncio_default_{}_loop_scope = session\n"
    project.set("auto", DOCTESTS_TOO + scopes.format("test") + scopes.format("fixture"))
    chosen = ("test_asyncio", "test_synchronous", "documented")
    project.write(checks=styles.CHECKS, **{name: ALL[name] for name in chosen})
    project.write(test_auto=AUTO)

    outcome = project.run("-p", "randomly", "--randomly-seed=3")

    assert outcome.counts == "29 passed, 1 skipped, 1 xfailed", outcome.output


def test_a_part_of_the_tests(project: Project) -> None:
    """-x, --lf, --stepwise and -k: whichever tests run, each begins with nothing."""
    project.write(checks=styles.CHECKS, test_some=SOME_FAIL)

    outcomes = {
        options: project.run(*options.split()).counts
        for options in ("-x", "--lf", "--stepwise", "-k writes")
    }

    assert outcomes == {
        "-x": "1 failed, 1 passed",
        "--lf": "1 failed",
        "--stepwise": "1 failed, 1 passed",
        "-k writes": "2 passed, 1 deselected",
    }
