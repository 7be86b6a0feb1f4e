"""Measure what the isolation of one test costs."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from statistics import median
from typing import NamedTuple

import machine
from pytest_runs import ASYNCIO, POSTGRESQL, PROJECTS, STILLROOM, Suite, Turns, turns
from report import Report, Row, Table
from rounds import is_quick, shuffled
from sqlalchemy import make_url

from stillroom.postgres import Cluster, temporary_cluster, with_asyncpg

SETTINGS = ("-o", "stillroom=true", "-o", "stillroom_metadata=models:Base.metadata")
TURN, NOT_COUNTED = 12, 4

METHOD = f"""\
The real thing under pytest: the tests of projects/notes are all alike, each commits one row in an
async session and reads it in another. For each method a process of pytest runs, all of them at
the same time, but one after the other for a turn of {TURN} tests: a turn of tests without
isolation, then a turn of a method, and so on, in an order that changes. So what else the machine
does meets all of them. A test lasts from the start of its protocol to that of the next one: all
that is done around it counts. The first {NOT_COUNTED} tests of a turn do not count, for a method
may prepare something while others have their turn. A figure is the median of the tests of a turn
minus that of the turn without isolation before it: it has the isolation, and whatever that makes
slower or faster in the test itself. A round has {{cycles}} turns of each method, and its figure
is their median; then all processes start anew. The table has the median, the minimum and the
maximum of {{rounds}} rounds.

All use asyncpg, the same programs of PostgreSQL, its data in memory (/dev/shm), a unix socket,
`fsync`, `full_page_writes`, `synchronous_commit` and `autovacuum` off, one event loop for all
tests. Peers have their best documented settings: `drop_all` and `create_all` do not look which
tables exist; one TRUNCATE names all tables; the recipe keeps its pool; pytest-postgresql loads
its template once and finds its server running (`postgresql_noproc`: its own would not start as
root)."""

FLOOR = "no isolation"
ORDER = (
    "Stillroom: sandbox",
    "Stillroom: clone",
    "SQLAlchemy: external transaction",
    "TRUNCATE ... RESTART IDENTITY CASCADE",
    "drop_all, create_all",
    "pytest-postgresql: template clone",
)


class Setting(NamedTuple):
    """What all methods of a table have in common: their tables, and the length of a test."""

    tables: int
    pause: float


def measure(setting: Setting, rounds: int, cycles: int) -> Table:
    """Run all methods in a setting."""
    costs: dict[str, list[float]] = {}
    tests: dict[str, list[float]] = {}
    with temporary_cluster() as cluster:
        names = count(1)
        for _ in range(rounds):
            differences: dict[str, list[float]] = {}
            for name, without, turn in _round(cluster, names, setting, cycles):
                differences.setdefault(name, []).append(median(turn) - median(without))
                tests.setdefault(name, []).extend(turn)
                tests.setdefault(FLOOR, []).extend(without)
            for name, figures in differences.items():
                costs.setdefault(name, []).append(median(figures))
    title = f"{setting.tables} table{'s' if setting.tables > 1 else ''}"
    if setting.pause:
        title += f", tests that wait {1000 * setting.pause:.0f} ms"
    floor = _fastest(tests[FLOOR])
    rows = [
        Row(name, costs[name], _target(name, setting), _fastest(tests[name]) - floor)
        for name in sorted(costs, key=ORDER.index)
    ]
    rows.append(Row("the test without isolation, subtracted", [median(tests[FLOOR])], None, floor))
    return Table(title, "ms a test", rows)


def _round(
    cluster: Cluster, names: "count[int]", setting: Setting, cycles: int
) -> Iterator[tuple[str, list[float], list[float]]]:
    """Yield for each turn the method, the times without isolation, and the method's, in ms."""
    suites = _suites(cluster, setting)
    methods = [name for name in suites if name != FLOOR]
    with ExitStack() as stack:
        running: dict[str, Turns] = {}
        for name, suite in suites.items():
            number = (cycles + 1) * (len(methods) if name == FLOOR else 1)
            environ = {
                "DATABASE_URL": _new_database(cluster, f"notes_{next(names)}"),
                "NOTES_TABLES": str(setting.tables),
                "NOTES_TESTS": str(number * TURN),
                "NOTES_PAUSE": str(setting.pause),
                "NOTES_ISOLATED": "no" if name == FLOOR else "yes",
            }
            whole = Suite(PROJECTS / "notes", suite.plugins, suite.arguments, environ)
            running[name] = stack.enter_context(turns(whole, TURN))
        for cycle in range(cycles + 1):
            for name in shuffled(methods):
                without, times = _turn(running[FLOOR]), _turn(running[name])
                if cycle:  # the first one makes the tables
                    yield name, without, times


def _turn(running: Turns) -> list[float]:
    return [1000 * seconds for seconds in running.next()[NOT_COUNTED:]]


def _fastest(figures: Sequence[float]) -> float:
    return sorted(figures)[len(figures) // 10]


def _suites(cluster: Cluster, setting: Setting) -> dict[str, Suite]:
    host = make_url(cluster.url("postgres")).query["host"]
    server = ("-o", f"postgresql_host={host}", "-o", "postgresql_user=postgres")
    clone = (*SETTINGS, "--stillroom-isolation=clone")
    clones = {
        FLOOR: _suite("none"),
        "Stillroom: clone": _suite("plugin", STILLROOM, clone),
        "pytest-postgresql: template clone": _suite("template", POSTGRESQL, server),
    }
    if setting.pause:
        return clones
    return {
        "Stillroom: sandbox": _suite("plugin", STILLROOM, SETTINGS),
        "SQLAlchemy: external transaction": _suite("external_transaction"),
        "TRUNCATE ... RESTART IDENTITY CASCADE": _suite("truncate"),
        "drop_all, create_all": _suite("create_all"),
        **clones,
    }


def _suite(method: str, plugins: Sequence[str] = (), arguments: Sequence[str] = ()) -> Suite:
    return Suite(PROJECTS / "notes", (*ASYNCIO, *plugins, f"methods.{method}"), arguments)


def _new_database(cluster: Cluster, name: str) -> str:
    cluster.create_database(name)
    return with_asyncpg(cluster.url(name))


def _target(name: str, setting: Setting) -> float | None:
    """Return what the design promises; for clones visible beside tests that take some time."""
    if name == "Stillroom: sandbox":
        return 0.5
    return 5.0 if name == "Stillroom: clone" and setting.pause else None


def main() -> None:
    """Measure, and write the results."""
    rounds, cycles = (2, 3) if is_quick(__doc__) else (7, 6)
    before = machine.load()
    settings = [Setting(1, 0), Setting(30, 0), Setting(1, 0.05), Setting(30, 0.05)]
    tables = [measure(setting, rounds, cycles) for setting in settings]
    Report(
        "isolation",
        "What does the isolation of one test cost?",
        METHOD.format(rounds=rounds, cycles=cycles),
        machine.describe(before),
        tables,
        is_busy=machine.is_busy(),
    ).write()


if __name__ == "__main__":
    main()
