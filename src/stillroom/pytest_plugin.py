"""Tests on a real PostgreSQL, each in a transaction that is rolled back: the pytest plugin.

It is active where the project's settings say `stillroom = true`. Inactive it imports nothing.
"""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from stillroom.testing.queries import QueryLog
    from stillroom.testing.refusal import Refusal
    from stillroom.testing.run import Run

RUN: "pytest.StashKey[Run]" = pytest.StashKey()
ISOLATIONS = ("sandbox", "clone")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the settings and options, all of them by the name of the plugin."""
    parser.addini("stillroom", "test on a PostgreSQL of the run's own", type="bool", default=False)
    parser.addini(
        "stillroom_migrations",
        "folder of the pyproject.toml with [tool.alembic]; the root folder unless set",
        default="",
    )
    parser.addini(
        "stillroom_metadata",
        "where the tables of a project without migrations come from: app.models:Base.metadata",
        default="",
    )
    group = parser.getgroup("stillroom")
    group.addoption(
        "--stillroom-max-repeats",
        type=int,
        metavar="N",
        help="fail a test that sends statements of one shape more than N times",
    )
    group.addoption(
        "--stillroom-isolation",
        choices=ISOLATIONS,
        default="sandbox",
        help="run each test in a transaction that is rolled back, or in a database of its own",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Start the server, which boots while the application is imported."""
    config.addinivalue_line(
        "markers",
        'stillroom(isolation="clone"): give the test a database of its own, with real commits',
    )
    if config.getini("stillroom"):
        from stillroom.testing.run import Run  # noqa: PLC0415

        run = Run(lambda url: _build(config, url))
        config.stash[RUN] = run
        run.launch()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server."""
    if (run := config.stash.get(RUN, None)) is not None:
        run.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a marker that says nothing, before any test runs."""
    for item in items:
        _isolation(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, Any, Any]:
    """Give the test its isolation; what its wider scopes did stays until they end."""
    run = item.config.stash.get(RUN, None)
    if run is None:
        return (yield)
    run.queries.clear()
    is_clone = _isolation(item) == "clone"
    if is_clone:
        run.clone()
    try:
        return (yield)
    finally:
        if is_clone:
            run.drop_clone()
        run.stand_at(_levels(nextitem.parent) if nextitem is not None else ())


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> None:
    """Let what a fixture writes last as long as the fixture does."""
    _ = fixturedef
    if (run := request.config.stash.get(RUN, None)) is not None:
        run.stand_at(_levels(request.node))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test whose application passed over an error of the sandbox."""
    run = item.config.stash.get(RUN, None)
    if run is None:
        return (yield)
    run.stand_at(_levels(item))
    result = yield
    refusals = run.take_refusals()
    if refusals and "stillroom_refusals" not in getattr(item, "fixturenames", ()):
        pytest.fail("\n".join(str(refusal) for refusal in refusals), pytrace=False)
    limit = item.config.getoption("--stillroom-max-repeats")
    if limit is not None and (repeated := run.queries.repeated(limit)):
        pytest.fail(repeated, pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the SQL of a test that has failed."""
    report = yield
    run = item.config.stash.get(RUN, None)
    if run is not None and report.failed and (sent := run.queries.report()):
        report.sections.append(("SQL that the test sent", sent))
    return report


@pytest.fixture
def queries(request: pytest.FixtureRequest) -> "QueryLog":
    """Give what the test has sent: `with queries.at_most(3): ...` bounds the queries of a block."""
    return request.config.stash[RUN].queries


@pytest.fixture
def stillroom_refusals(request: pytest.FixtureRequest) -> "Callable[[], list[Refusal]]":
    """Give a function that returns what the sandbox has refused, and let the test pass with it."""
    return request.config.stash[RUN].take_refusals


def _isolation(item: pytest.Item) -> str:
    marker = item.get_closest_marker("stillroom")
    if marker is None:
        return str(item.config.getoption("--stillroom-isolation"))
    isolation = marker.kwargs.get("isolation")
    if marker.args or isolation not in ISOLATIONS:
        msg = f'{item.nodeid}: write @pytest.mark.stillroom(isolation="clone"), or "sandbox"'
        raise pytest.UsageError(msg)
    return str(isolation)


def _levels(node: Any) -> list[str]:
    """Return the scopes that the node is within, the session apart, from the widest on."""
    return [f"{type(it).__name__} {it.nodeid}" for it in node.listchain()[1:]]


def _build(config: pytest.Config, url: str) -> None:
    """Bring an empty database to what the project's revisions, or its models, say."""
    from stillroom.testing.schema import create_tables, migrate  # noqa: PLC0415

    if metadata := config.getini("stillroom_metadata"):
        create_tables(str(metadata), url)
    else:
        migrate(Path(config.rootpath, str(config.getini("stillroom_migrations"))), url)
