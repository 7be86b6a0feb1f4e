"""What pytest loads into SQLAlchemy's suite: it notes the outcomes, and runs tests in a sandbox."""

import json
import random
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pytest

if TYPE_CHECKING:
    from tests.testing.conftest import RunningSandbox

SANDBOX: "pytest.StashKey[RunningSandbox]" = pytest.StashKey()
OUTCOMES: "pytest.StashKey[dict[str, Outcome]]" = pytest.StashKey()


class Outcome(TypedDict):
    """Say how a test ended: `passed`, `failed` or `skipped`, with its tracebacks and refusals."""

    outcome: str
    errors: str
    refusals: list[str]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare where outcomes go, and the database of the sandbox."""
    parser.addoption("--outcomes", type=Path, required=True)
    parser.addoption("--sandbox-url", help="run in a sandbox on this database")


def pytest_configure(config: pytest.Config) -> None:
    """Open the sandbox before SQLAlchemy's plugin makes its first engine."""
    config.stash[OUTCOMES] = {}
    if url := config.getoption("--sandbox-url"):
        from stillroom.testing.engines import direct_to, install
        from tests.testing.conftest import RunningSandbox

        running = RunningSandbox(url)
        config.stash[SANDBOX] = running
        install()
        direct_to(running.target)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Close the sandbox, and write the outcomes."""
    if (running := config.stash.get(SANDBOX, None)) is not None:
        running.close()
    Path(str(config.getoption("--outcomes"))).write_text(json.dumps(config.stash[OUTCOMES]))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, Any, Any]:
    """Roll back each test; what its class did stays until the last test of the class."""
    item.config.stash[OUTCOMES][item.nodeid] = Outcome(outcome="skipped", errors="", refusals=[])
    running = item.config.stash.get(SANDBOX, None)
    if running is None:
        return (yield)
    try:
        return (yield)
    finally:
        refusals = running.sandbox.refusals
        item.config.stash[OUTCOMES][item.nodeid]["refusals"] += map(str, refusals)
        refusals.clear()
        _stand_at(item.config, nextitem.parent if nextitem is not None else None)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> None:
    """Let what a fixture writes last as long as the fixture does."""
    _stand_at(request.config, request.node)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Enter the test's own level; a test that draws lots draws the same ones in each run."""
    random.seed(item.nodeid)
    _stand_at(item.config, item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note how a phase of a test ended."""
    report = yield
    outcome = item.config.stash[OUTCOMES][item.nodeid]
    if report.failed:
        outcome["outcome"] = "failed"
        outcome["errors"] += f"{report.when}: {report.longreprtext}\n"
    elif report.when == "call" and report.passed:
        outcome["outcome"] = "passed"
    return report


def _stand_at(config: pytest.Config, node: Any) -> None:
    if (running := config.stash.get(SANDBOX, None)) is not None:
        chain = node.listchain()[1:] if node is not None else ()
        levels = [f"{type(it).__name__} {it.nodeid}" for it in chain]
        running.call(running.sandbox.stand_at(levels))
