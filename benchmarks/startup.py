"""Measure what a real database adds to the start of a run of tests."""

import tempfile
from functools import partial
from pathlib import Path

import machine
from pytest_runs import ASYNCIO, PROJECTS, STILLROOM, Suite, run
from report import Report, Row, Table
from rounds import interleave, is_quick

METHOD = """\
The whole process of pytest with one test of projects/users, wall time, median, minimum and
maximum of {rounds} rounds, each with all in another order: one test through the same application
and client without a database and without the plugin; then one with the plugin that reads the
table, in later runs (the template is kept) and in the first run ever (a cache folder that is
empty). The second table has the difference of both to the first in the same round."""

SETTINGS = ("-o", "stillroom=true", "-o", "stillroom_metadata=accounts.application:Base.metadata")


def main() -> None:
    """Measure, and write the results."""
    rounds = 5 if is_quick(__doc__) else 21
    before = machine.load()
    with tempfile.TemporaryDirectory() as kept:
        with_database = (*ASYNCIO, *STILLROOM), ("test_one.py", *SETTINGS)
        _seconds(_suite(*with_database, Path(kept)))
        plain = partial(_seconds, _suite(ASYNCIO, ("test_health.py",), Path(kept)))
        later = partial(_seconds, _suite(*with_database, Path(kept)))
        found = interleave(
            {"none": plain, "later": later, "first": partial(_first, *with_database)}, rounds
        )
    none = found["none"]
    names = {"later": "Stillroom: later runs", "first": "Stillroom: first run ever"}
    whole = [Row("one test, no database", none)]
    whole += [Row(names[key], found[key]) for key in names]
    added = [
        Row(
            names[key],
            [took - without for took, without in zip(found[key], none, strict=True)],
            target=0.3 if key == "later" else None,
        )
        for key in names
    ]
    Report(
        "startup",
        "What does a real database add to the start of a run of tests?",
        METHOD.format(rounds=rounds),
        machine.describe(before),
        [Table("The whole process", "s", whole), Table("What the database adds", "s", added)],
        is_busy=machine.is_busy(),
    ).write()


def _first(plugins: tuple[str, ...], arguments: tuple[str, ...]) -> float:
    with tempfile.TemporaryDirectory() as empty:
        return _seconds(_suite(plugins, arguments, Path(empty)))


def _suite(plugins: tuple[str, ...], arguments: tuple[str, ...], cache: Path) -> Suite:
    environ = {
        "DATABASE_URL": "postgresql+asyncpg://nobody@nowhere/x",
        "XDG_CACHE_HOME": str(cache),
    }
    return Suite(PROJECTS / "users", plugins, arguments, environ)


def _seconds(suite: Suite) -> float:
    return run(suite).process


if __name__ == "__main__":
    main()
