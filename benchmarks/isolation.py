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
slower or faster in the test itself. A second table has what lies around the test's own function
alone, which is what the isolation does by itself; only the sandbox begins within it, with the first
statement. A round has {{cycles}} turns of each method, and its figure
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


def measure(setting: Setting, rounds: int, cycles: int) -> list[Table]:
    """Run all methods in a setting; return what they cost, and how much of it around the test."""
    found: dict[str, _Costs] = {}
    with temporary_cluster() as cluster:
        names = count(1)
        for _ in range(rounds):
            of_round: dict[str, list[tuple[_Turn, _Turn]]] = {}
            for name, without, turn in _round(cluster, names, setting, cycles):
                of_round.setdefault(name, []).append((without, turn))
            for name, turns_of_it in of_round.items():
                found.setdefault(name, _Costs()).add(turns_of_it)
    title = f"{setting.tables} table{'s' if setting.tables > 1 else ''}"
    if setting.pause:
        title += f", tests that wait {1000 * setting.pause:.0f} ms"
    floor = [time for costs in found.values() for time in costs.without]
    known = sorted(found, key=ORDER.index)
    rows = [
        Row(
            name,
            found[name].whole,
            target=5.0 if name == "Stillroom: clone" and setting.pause else None,
            undisturbed=_fastest(found[name].tests) - _fastest(floor),
        )
        for name in known
    ]
    subtracted = "the test without isolation, subtracted"
    rows.append(Row(subtracted, [median(floor)], undisturbed=_fastest(floor)))
    if setting.pause:
        return [Table(title, "ms a test", rows)]
    around = [
        Row(name, found[name].around, target=0.5 if name == "Stillroom: sandbox" else None)
        for name in known
    ]
    return [
        Table(title, "ms a test", rows),
        Table(f"{title}, around the test alone", "ms a test", around),
    ]


class _Turn(NamedTuple):
    """The tests of a turn, in ms: each whole, and what of it lies around its function."""

    whole: list[float]
    around: list[float]


class _Costs:
    """What a method costs: a figure for each round; and all tests, of it and without it."""

    def __init__(self) -> None:
        self.whole: list[float] = []
        self.around: list[float] = []
        self.tests: list[float] = []
        self.without: list[float] = []

    def add(self, turns_of_round: Sequence[tuple[_Turn, _Turn]]) -> None:
        """Take a round: turns without isolation, each with the method's own that followed."""
        self.whole.append(median(median(b.whole) - median(a.whole) for a, b in turns_of_round))
        self.around.append(median(median(b.around) - median(a.around) for a, b in turns_of_round))
        for without, turn in turns_of_round:
            self.tests += turn.whole
            self.without += without.whole


def _round(
    cluster: Cluster, names: "count[int]", setting: Setting, cycles: int
) -> Iterator[tuple[str, _Turn, _Turn]]:
    """Yield for each turn the method, the tests without isolation, and the method's."""
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


def _turn(running: Turns) -> _Turn:
    tests = running.next()[NOT_COUNTED:]
    return _Turn(
        [1000 * whole for whole, _ in tests], [1000 * (whole - body) for whole, body in tests]
    )


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


def main() -> None:
    """Measure, and write the results."""
    rounds, cycles = (2, 3) if is_quick(__doc__) else (7, 6)
    before = machine.load()
    settings = [Setting(1, 0), Setting(30, 0), Setting(1, 0.05), Setting(30, 0.05)]
    tables = [table for setting in settings for table in measure(setting, rounds, cycles)]
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
