"""The run of a project's tests: whether there is one, and what of it a test has."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stillroom.errors import ConfigurationError

if TYPE_CHECKING:
    from stillroom.testing.databases.server import Server
    from stillroom.testing.databases.template import Schema
    from stillroom.testing.run import Run

RUN: "pytest.StashKey[Run]" = pytest.StashKey()
ISOLATIONS = ("sandbox", "clone")


def will_test(config: pytest.Config) -> bool:
    """Say whether pytest was asked to run tests, not to show something."""
    asked = config.known_args_namespace
    return not any(getattr(asked, name, None) for name in _WITHOUT_TESTS)


def start(config: pytest.Config) -> "Run":
    """Return the run of the process, which is launched when it is first asked for.

    Raises pytest.UsageError for a server that cannot be tested on.
    """
    if RUN not in config.stash:
        from stillroom.testing.run import Run  # noqa: PLC0415

        default = str(config.known_args_namespace.stillroom_isolation)
        has_canary = bool(config.known_args_namespace.stillroom_canary)
        config.stash[RUN] = run = Run(
            _server(config), _schema(config), default, has_canary=has_canary
        )
        config.add_cleanup(run.close)
        run.launch()
    return config.stash[RUN]


def run_of(item: pytest.Item) -> "Run | None":
    """Return the run, if it is also the test's: in an active project, or by its fixtures."""
    run = item.config.stash.get(RUN, None)
    return run if run is not None and is_ours(item) else None


def is_ours(item: pytest.Item) -> bool:
    """Say whether a test has a database of the run: in an active project, or by its fixtures."""
    if item.config.getini("stillroom"):
        return True
    return any(name.startswith("stillroom_") for name in getattr(item, "fixturenames", ()))


def isolation_of(item: pytest.Item) -> str:
    """Return the isolation of a test; a marker that says nothing fails it."""
    isolation = asked_isolation(item)
    if isolation is None:
        msg = f'{item.nodeid}: write @pytest.mark.stillroom(isolation="clone"), or "sandbox"'
        pytest.fail(msg, pytrace=False)
    return isolation


def asked_isolation(item: pytest.Item) -> str | None:
    """Return the isolation that a test asks for; None where its marker says nothing."""
    marker = item.get_closest_marker("stillroom")
    if marker is None:
        own = getattr(_class_of(item), "stillroom_isolation", None)
        return own or str(item.config.getoption("--stillroom-isolation"))
    isolation = marker.kwargs.get("isolation")
    return None if marker.args or isolation not in ISOLATIONS else str(isolation)


def scopes_of(node: Any) -> Sequence[str]:
    """Return the scopes that the node is within, the session apart, from the widest on."""
    stash: pytest.Stash = node.stash
    if _SCOPES not in stash:
        chain = node.listchain()[1:]
        stash[_SCOPES] = tuple(f"{type(it).__name__} {it.nodeid}" for it in chain)
    return stash[_SCOPES]


def migrations_folder(config: pytest.Config) -> Path:
    """Return the folder that has the configuration of Alembic."""
    return config.rootpath / str(config.getini("stillroom_migrations"))


def _class_of(item: pytest.Item) -> type | None:
    if _CLASS not in item.stash:
        item.stash[_CLASS] = getattr(item, "cls", None)
    return item.stash[_CLASS]


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

    return Revisions(migrations_folder(config))


# What each hook of a test asks, and pytest looks for anew each time.
_CLASS: pytest.StashKey[type | None] = pytest.StashKey()
_SCOPES: pytest.StashKey[Sequence[str]] = pytest.StashKey()

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
