"""Tests on a real PostgreSQL, each in a transaction that is rolled back: the pytest plugin.

It is active where the project's settings say `stillroom = true`, and for a test that uses one of
the fixtures below. Elsewhere it imports no part of the library but its errors and touches no test.
"""

import argparse
import os
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from stillroom import pytest_coroutines, pytest_processes
from stillroom.errors import ConfigurationError
from stillroom.pytest_run import (
    ISOLATIONS,
    RUN,
    asked_isolation,
    is_ours,
    isolation_of,
    migrations_folder,
    run_of,
    scopes_of,
    start,
    will_test,
)

if TYPE_CHECKING:
    from stillroom.testing.queries import QueryLog
    from stillroom.testing.run import Run

ITEM: "pytest.StashKey[pytest.Item]" = pytest.StashKey()
"""The test that runs."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the settings and options, all of them by the name of the plugin."""
    parser.addini("stillroom", "test on a PostgreSQL of the run's own", type="bool", default=False)
    parser.addini(
        "stillroom_app",
        "the application of the fixtures app and client, as in run:server or app:init_app",
        default="",
    )
    parser.addini(
        "stillroom_manager",
        "the session manager of the fixture sessionmanager, as in app.database:sessionmanager",
        default="",
    )
    parser.addini(
        "stillroom_migrations",
        "folder of the configuration of Alembic; the root folder unless set",
        default="",
    )
    parser.addini(
        "stillroom_metadata",
        "where the tables of a project without migrations come from: app.models:Base.metadata",
        default="",
    )
    group = parser.getgroup("stillroom")
    group.addoption(
        "--stillroom-url",
        metavar="URL",
        help="a PostgreSQL server to test on, by a role that may create databases; else the "
        "variable STILLROOM_TEST_URL, else a private server",
    )
    group.addoption(
        "--stillroom-isolation",
        choices=ISOLATIONS,
        default="sandbox",
        help="run each test in a transaction that is rolled back, or in a database of its own",
    )
    group.addoption(
        "--stillroom-max-repeats",
        type=int,
        metavar="N",
        help="fail a test that sends statements of one shape more than N times",
    )
    group.addoption(
        "--stillroom-keep",
        action="store_true",
        help="stop at the first test that fails, and leave its database",
    )
    group.addoption(
        "--stillroom-canary",
        action="store_true",
        help="look after each test, from a process of its own, whether the sandbox has left "
        "anything in the database; stop where it has",
    )

    # For `stillroom compare`, and for nobody else.
    group.addoption("--stillroom-outcomes", metavar="FILE", help=argparse.SUPPRESS)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Start the server, which boots while the application is imported; offer the fixtures."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ  # it learns later which server to use
    if early_config.getini("stillroom"):
        _offer_fixtures(early_config)
        if not is_worker and will_test(early_config):
            start(early_config)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker, and start what a process of pytest-xdist has not started before."""
    config.addinivalue_line(
        "markers",
        'stillroom(isolation="clone"): give the test a database of its own, with real commits',
    )
    outcomes = config.getoption("--stillroom-outcomes")
    if outcomes and not config.getini("stillroom"):
        msg = (
            f"{config.inipath or config.rootpath} does not say `stillroom = true`, so these tests "
            "have no isolation that could be compared"
        )
        raise pytest.UsageError(msg)
    if outcomes and not hasattr(config, "workerinput"):
        from stillroom.pytest_outcomes import Outcomes  # noqa: PLC0415

        config.pluginmanager.register(Outcomes(config, Path(outcomes)), "stillroom-outcomes")
    config.pluginmanager.register(pytest_processes, "stillroom-processes")
    if config.getini("stillroom"):
        # Whichever loop a fixture has, its connections work: there is nothing to be set.
        unset = '.*"asyncio_default_fixture_loop_scope" is unset'
        warnings.filterwarnings("ignore", unset, pytest.PytestDeprecationWarning)
        if config.pluginmanager.hasplugin("asyncio"):
            config.pluginmanager.register(pytest_coroutines, "stillroom-coroutines")
        if will_test(config):
            start(config)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Count the clones to come."""
    isolations = [asked_isolation(item) for item in session.items if is_ours(item)]
    if isolations and will_test(session.config):
        start(session.config).expect_clones(isolations.count("clone"))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Begin with nothing of another test; what its wider scopes did stays until they end."""
    run = item.config.stash.get(RUN, None)
    if run is None:
        return (yield)
    item.config.stash[ITEM] = item
    run.begin_test()
    if not is_ours(item):
        run.leave_alone()
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> None:
    """Let what a fixture writes last as long as the fixture does."""
    _ = fixturedef
    run = request.config.stash.get(RUN, None)
    if run is not None and is_ours(request.config.stash[ITEM]):
        node = request.node
        isolation = isolation_of(node) if isinstance(node, pytest.Item) else None
        run.stand_at_fixture(scopes_of(node), isolation)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test whose application passed over an error of the sandbox."""
    if (run := run_of(item)) is None:
        return (yield)
    run.stand_at(scopes_of(item), isolation_of(item))
    result = yield
    _fail_by_refusals(run, item)
    limit = item.config.getoption("--stillroom-max-repeats")
    if limit is not None and (repeated := run.queries.repeated(limit)):
        pytest.fail(repeated, pytrace=False)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, Any, Any]:
    """Do the same where the application does so when its fixtures end; then let the canary look."""
    if (run := run_of(item)) is None:
        return (yield)
    run.take_refusals()  # a test that has failed needs no second reason
    for node in _ending(item, nextitem):
        # What is registered last comes first: the fixtures of a scope end without the last test.
        with suppress(AssertionError):  # of a scope that could not begin
            node.addfinalizer(partial(run.stand_at, scopes_of(node)))
    try:
        result = yield
        _fail_by_refusals(run, item)
    except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:
        if found := _look(run, item, nextitem):
            error.add_note(found)
        raise
    if found := _look(run, item, nextitem):
        pytest.fail(found, pytrace=False)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the SQL of a test that has failed, and what was refused in it."""
    report = yield
    if not report.failed or (run := run_of(item)) is None:
        return report
    if sent := run.queries.report():
        report.sections.append(("SQL that the test sent", sent))
    if refusals := run.take_refusals():  # it may have failed by one that the application swallowed
        report.sections.append(("Refused in this test", "\n".join(map(str, refusals))))
    if item.config.getoption("--stillroom-keep") and report.when != "teardown":
        run.keep(item.nodeid)
        item.session.shouldfail = "stopping at a test that has failed: --stillroom-keep"
    return report


@pytest.fixture
def stillroom_url(request: pytest.FixtureRequest) -> str:
    """Give the URL of the test's database.

    An engine with it is in the sandbox, as with any other URL; in a test with a database of its own
    other processes and drivers may connect to it too.
    """
    return _run(request).url()


@pytest.fixture(scope="session")
def stillroom_new_database(request: pytest.FixtureRequest) -> Callable[..., str]:
    """Give a function that makes a database on the run's server and returns its URL.

    It is empty, or with `migrated=True` has the tables of the project. Other processes, and drivers
    without SQLAlchemy, may connect to it; engines of this process go to the test's database.
    """
    return _run(request).new_database


@pytest.fixture(scope="session")
def stillroom_migrations_folder(request: pytest.FixtureRequest) -> Path:
    """Give the folder that has the configuration of Alembic."""
    return migrations_folder(request.config)


@pytest.fixture
def stillroom_queries(request: pytest.FixtureRequest) -> "QueryLog":
    """Give what the test has sent: `with queries.at_most(3): ...` bounds the queries of a block."""
    return _run(request).queries


@pytest.fixture
def stillroom_refusals(request: pytest.FixtureRequest) -> Callable[[], Sequence[Exception]]:
    """Give a function that returns what was refused, and let the test pass with it."""
    return _run(request).take_refusals


def _offer_fixtures(config: pytest.Config) -> None:
    """Register the fixtures that no other plugin has, before the project registers its own.

    Of two plugins it is the later one whose fixture pytest takes, wherever they come from.
    """
    from stillroom import pytest_fixtures  # noqa: PLC0415

    kind = type(pytest_fixtures.client)
    plugins = config.pluginmanager.get_plugins()
    found = [it for plugin in plugins for it in getattr(plugin, "__dict__", {}).values()]
    taken = {it.name for it in found if isinstance(it, kind)}
    offered = ModuleType(pytest_fixtures.__name__)
    for name, fixture in vars(pytest_fixtures).items():
        if isinstance(fixture, kind) and name not in taken:
            setattr(offered, name, fixture)
    config.pluginmanager.register(offered, "stillroom-fixtures")


def _ending(item: pytest.Item, nextitem: pytest.Item | None) -> set[Any]:
    """Return the wider scopes that end with a test."""
    if nextitem is not None and nextitem.parent is item.parent:
        return set()
    return set(item.listchain()[:-1]) - set(nextitem.listchain() if nextitem else ())


def _fail_by_refusals(run: "Run", item: pytest.Item) -> None:
    refusals = run.take_refusals()
    if refusals and "stillroom_refusals" not in getattr(item, "fixturenames", ()):
        pytest.fail("\n".join(str(refusal) for refusal in refusals), pytrace=False)


def _look(run: "Run", item: pytest.Item, nextitem: pytest.Item | None) -> str:
    """Roll back what the test did, and say what is left of it; then no other test may run."""
    try:
        run.stand_between(scopes_of(nextitem.parent) if nextitem is not None else ())
    except Exception:
        item.session.shouldfail = "stopping at a test whose work could not be undone"
        raise
    if found := run.look():
        item.session.shouldfail = "stopping at a test that has left something: --stillroom-canary"
    return found


def _run(request: pytest.FixtureRequest) -> "Run":
    run = request.config.stash.get(RUN, None)
    if run is None or not is_ours(request.config.stash[ITEM]):
        msg = (
            f"{request.fixturename} was asked for by request.getfixturevalue, too late for the "
            "test to have a database of the run. Let the test name the fixture, as an argument or "
            "by @pytest.mark.usefixtures, or set `stillroom = true` for all tests"
        )
        raise ConfigurationError(msg)
    return run
