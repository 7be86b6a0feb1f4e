"""The processes of pytest-xdist: one server for all, and one account at the end."""

from typing import Any

import pytest

from stillroom.pytest_run import RUN

OF_PROCESSES: "pytest.StashKey[list[str]]" = pytest.StashKey()
"""What processes of pytest-xdist have to say that had to start servers of their own."""


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


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say which PostgreSQL it was, what isolation has cost, and where failed tests' data are."""
    if hasattr(config, "workerinput"):
        return
    run = config.stash.get(RUN, None)
    of_this = [] if run is None else run.summary()
    for line in [*of_this, *config.stash.setdefault(OF_PROCESSES, [])]:
        terminalreporter.write_line(line)
