"""Measure how long 1,000 small HTTP tests take."""

from collections.abc import Sequence
from functools import partial

import machine
from pytest_runs import ASYNCIO, PROJECTS, STILLROOM, Suite, run
from report import Report, Row, Table
from rounds import interleave, is_quick

METHOD = """\
projects/users is a users API with one table, and knows nothing of Stillroom. Each of its {tests}
tests creates a user, gets it, and lists all users. The figure is the wall time of the whole
process of pytest, start, imports and server included: median, minimum and maximum of {rounds}
rounds, each with all methods in another order.

The article's method is written anew for today's packages, as its best: a PostgreSQL for the run
(Stillroom's own, as fast as it can be made: in memory, nothing synced), all tables dropped and
created for each test, the dependency overridden, TestClient, psycopg with a pool that is kept.
One table is where it costs least; benchmarks/isolation.py has thirty. Stillroom's tests use
asyncpg and the application as it is."""

SETTINGS = ("-o", "stillroom=true", "-o", "stillroom_metadata=accounts.application:Base.metadata")


def main() -> None:
    """Measure, and write the results."""
    tests, rounds = (100, 3) if is_quick(__doc__) else (1000, 5)
    before = machine.load()
    stillroom = (*STILLROOM, "fixtures.plugin")
    suites = {
        "Stillroom: sandbox, AsyncClient": _suite(tests, "test_async.py", stillroom, SETTINGS),
        "Stillroom: sandbox, TestClient": _suite(tests, "test_sync.py", stillroom, SETTINGS),
        "the article's method, TestClient": _suite(tests, "test_sync.py", ("fixtures.article",)),
    }
    found = interleave({name: partial(_seconds, suite) for name, suite in suites.items()}, rounds)
    rows = [Row(name, found[name]) for name in suites]
    Report(
        "suite",
        "How long do 1,000 small HTTP tests take?",
        METHOD.format(tests=f"{tests:,}", rounds=rounds),
        machine.describe(before),
        [Table(f"{tests:,} tests", "s", rows)],
        is_busy=machine.is_busy(),
    ).write()


def _suite(tests: int, file: str, plugins: Sequence[str], arguments: Sequence[str] = ()) -> Suite:
    # A connection to what the URL names would be an error.
    environ = {"USERS_TESTS": str(tests), "DATABASE_URL": "postgresql+asyncpg://nobody@nowhere/x"}
    return Suite(PROJECTS / "users", (*ASYNCIO, *plugins), (file, *arguments), environ)


def _seconds(suite: Suite) -> float:
    return run(suite).process


if __name__ == "__main__":
    main()
