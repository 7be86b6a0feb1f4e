"""Tests on a real PostgreSQL, each in a transaction that is rolled back: the pytest plugin.

It is active where the project's settings say `stillroom = true`, and for a test that uses one of
the fixtures below. Elsewhere it imports no part of the library but its errors and touches no test.
"""

import argparse
import os
import warnings
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from stillroom.errors import ConfigurationError

if TYPE_CHECKING:
    from stillroom.testing.databases.server import Server
    from stillroom.testing.databases.template import Schema
    from stillroom.testing.queries import QueryLog
    from stillroom.testing.run import Run

RUN: "pytest.StashKey[Run]" = pytest.StashKey()
ITEM: "pytest.StashKey[pytest.Item]" = pytest.StashKey()
"""The test that runs."""
OF_PROCESSES: "pytest.StashKey[list[str]]" = pytest.StashKey()
"""What processes of pytest-xdist have to say that had to start servers of their own."""
ISOLATIONS = ("sandbox", "clone")


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
        if not is_worker and _will_test(early_config):
            _start(early_config)


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
    if config.getini("stillroom"):
        # Whichever loop a fixture has, its connections work: there is nothing to be set.
        unset = '.*"asyncio_default_fixture_loop_scope" is unset'
        warnings.filterwarnings("ignore", unset, pytest.PytestDeprecationWarning)
        if _will_test(config):
            _start(config)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of pytest-xdist which server to use.

    In a project that is not active there is none to tell of: only who has collected the tests knows
    that one asks for a database, and starts a server of its own.
    """
    if (run := node.config.stash.get(RUN, None)) is not None:
        node.workerinput["stillroom"] = (run.server.url(), run.server.origin)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a process of pytest-xdist has to say."""
    output = getattr(node, "workeroutput", {})
    if account := output.get("stillroom"):
        from stillroom.testing.run import Account  # noqa: PLC0415

        node.config.stash[RUN].others.add(Account(**account))
    node.config.stash.setdefault(OF_PROCESSES, []).extend(output.get("stillroom_summary", ()))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Say the controlling process of pytest-xdist what there is to say."""
    output = getattr(session.config, "workeroutput", None)
    if output is None or (run := session.config.stash.get(RUN, None)) is None:
        return
    if "stillroom" in getattr(session.config, "workerinput", {}):
        from dataclasses import asdict  # noqa: PLC0415

        output["stillroom"] = asdict(run.account())
    else:
        output["stillroom_summary"] = run.summary()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Count the clones to come."""
    isolations = [_asked_isolation(item) for item in session.items if _is_ours(item)]
    if isolations and _will_test(session.config):
        _start(session.config).expect_clones(isolations.count("clone"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse a marker that says nothing."""
    if _is_ours(item):
        _isolation(item)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Begin with nothing of another test; what its wider scopes did stays until they end."""
    run = item.config.stash.get(RUN, None)
    if run is None:
        return (yield)
    item.config.stash[ITEM] = item
    run.begin_test()
    if not _is_ours(item):
        run.leave_alone()
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> None:
    """Let what a fixture writes last as long as the fixture does."""
    _ = fixturedef
    run = request.config.stash.get(RUN, None)
    if run is not None and _is_ours(request.config.stash[ITEM]):
        run.stand_at_fixture(_levels(request.node), _isolation_of(request.node))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Fail a test whose application passed over an error of the sandbox."""
    run = item.config.stash.get(RUN, None)
    if run is None or not _is_ours(item):
        return (yield)
    run.stand_at(_levels(item), _isolation(item))
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
    run = item.config.stash.get(RUN, None)
    if run is None or not _is_ours(item):
        return (yield)
    run.take_refusals()  # a test that has failed needs no second reason
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
    run = item.config.stash.get(RUN, None)
    if run is None or not _is_ours(item) or not report.failed:
        return report
    if sent := run.queries.report():
        report.sections.append(("SQL that the test sent", sent))
    if refusals := run.take_refusals():  # it may have failed by one that the application swallowed
        report.sections.append(("Refused in this test", "\n".join(map(str, refusals))))
    if item.config.getoption("--stillroom-keep") and report.when != "teardown":
        run.keep(item.nodeid)
        item.session.shouldfail = "stopping at a test that has failed: --stillroom-keep"
    return report


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which PostgreSQL it was, what isolation has cost, and where failed tests' data are."""
    if hasattr(config, "workerinput"):
        return
    run = config.stash.get(RUN, None)
    of_this = [] if run is None else run.summary()
    for line in [*of_this, *config.stash.setdefault(OF_PROCESSES, [])]:
        terminalreporter.write_line(line)


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
    return _migrations_folder(request.config)


@pytest.fixture
def stillroom_queries(request: pytest.FixtureRequest) -> "QueryLog":
    """Give what the test has sent: `with queries.at_most(3): ...` bounds the queries of a block."""
    return _run(request).queries


@pytest.fixture
def stillroom_refusals(request: pytest.FixtureRequest) -> Callable[[], Sequence[Exception]]:
    """Give a function that returns what was refused, and let the test pass with it."""
    return _run(request).take_refusals


def _will_test(config: pytest.Config) -> bool:
    asked = config.known_args_namespace
    return not any(getattr(asked, name, None) for name in _WITHOUT_TESTS)


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


_WITHOUT_TESTS = (
    "help",
    "version",
    "markers",
    "collectonly",
    "setupplan",
    "showfixtures",
    "show_fixtures_per_test",
    "cacheshow",
)
"""The options with which pytest runs no test; those of a plugin that is blocked are not there."""


def _start(config: pytest.Config) -> "Run":
    if RUN not in config.stash:
        from stillroom.testing.run import Run  # noqa: PLC0415

        isolation = str(config.known_args_namespace.stillroom_isolation)
        has_canary = bool(config.known_args_namespace.stillroom_canary)
        config.stash[RUN] = run = Run(
            _server(config), _schema(config), isolation, has_canary=has_canary
        )
        config.add_cleanup(run.close)
        run.launch()
    return config.stash[RUN]


def _server(config: pytest.Config) -> "Server":
    from stillroom.testing.databases.server import GivenServer, PrivateServer  # noqa: PLC0415

    if (told := getattr(config, "workerinput", {}).get("stillroom")) is not None:
        return GivenServer(*told)
    given = {
        "--stillroom-url": config.known_args_namespace.stillroom_url,
        "STILLROOM_TEST_URL": os.environ.get("STILLROOM_TEST_URL"),
    }
    for origin, url in given.items():
        if url:
            try:
                return GivenServer(url, origin)
            except ConfigurationError as error:
                raise pytest.UsageError(str(error)) from error
    return PrivateServer(config.rootpath)


def _schema(config: pytest.Config) -> "Schema":
    if metadata := str(config.getini("stillroom_metadata")):
        from stillroom.testing.databases.tables import Tables  # noqa: PLC0415

        return Tables(metadata)
    from stillroom.testing.databases.revisions import Revisions  # noqa: PLC0415

    return Revisions(_migrations_folder(config))


def _migrations_folder(config: pytest.Config) -> Path:
    return config.rootpath / str(config.getini("stillroom_migrations"))


def _is_ours(item: pytest.Item) -> bool:
    """Say whether a test has a database of the run: in an active project, or by its fixtures."""
    if item.config.getini("stillroom"):
        return True
    return any(name.startswith("stillroom_") for name in getattr(item, "fixturenames", ()))


def _isolation(item: pytest.Item) -> str:
    isolation = _asked_isolation(item)
    if isolation is None:
        msg = f'{item.nodeid}: write @pytest.mark.stillroom(isolation="clone"), or "sandbox"'
        pytest.fail(msg, pytrace=False)
    return isolation


def _asked_isolation(item: pytest.Item) -> str | None:
    marker = item.get_closest_marker("stillroom")
    if marker is None:
        return str(item.config.getoption("--stillroom-isolation"))
    isolation = marker.kwargs.get("isolation")
    return None if marker.args or isolation not in ISOLATIONS else str(isolation)


def _isolation_of(node: Any) -> str | None:
    return _isolation(node) if isinstance(node, pytest.Item) else None


def _fail_by_refusals(run: "Run", item: pytest.Item) -> None:
    refusals = run.take_refusals()
    if refusals and "stillroom_refusals" not in getattr(item, "fixturenames", ()):
        pytest.fail("\n".join(str(refusal) for refusal in refusals), pytrace=False)


def _look(run: "Run", item: pytest.Item, nextitem: pytest.Item | None) -> str:
    """Roll back what the test did, and say what is left of it; then no other test may run."""
    try:
        run.stand_at(_levels(nextitem.parent) if nextitem is not None else ())
    except Exception:
        item.session.shouldfail = "stopping at a test whose work could not be undone"
        raise
    if found := run.look():
        item.session.shouldfail = "stopping at a test that has left something: --stillroom-canary"
    return found


def _levels(node: Any) -> list[str]:
    """Return the scopes that the node is within, the session apart, from the widest on."""
    return [f"{type(it).__name__} {it.nodeid}" for it in node.listchain()[1:]]


def _run(request: pytest.FixtureRequest) -> "Run":
    run = request.config.stash.get(RUN, None)
    if run is None or not _is_ours(request.config.stash[ITEM]):
        msg = (
            f"{request.fixturename} was asked for by request.getfixturevalue, too late for the "
            "test to have a database of the run. Let the test name the fixture, as an argument or "
            "by @pytest.mark.usefixtures, or set `stillroom = true` for all tests"
        )
        raise ConfigurationError(msg)
    return run
