"""Make all faults: ``python -m tests.faults [--quick|--full] [NAME...]``."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from tests.faults import (
    cancellations,
    commits,
    ddl,
    hostile,
    migrations,
    neighbours,
    overload,
    pooler,
    restarts,
    rolling,
    tales,
)
from tests.faults.figure import Figure
from tests.faults.report import table, write
from tests.faults.stage import Stage, open_stage

Fault = Callable[[Stage], Figure | list[Figure]]

QUICK: Sequence[Fault] = [
    overload.overload,
    cancellations.clients_that_leave,
    restarts.restarts,
    restarts.silence,
    hostile.hostile_input,
    migrations.migrate_at_once,
    commits.write_then_read,
    ddl.alter_under_load,
    neighbours.after_a_mistake,
]

FULL: Sequence[Fault] = [
    *QUICK,
    overload.recovery,
    overload.impatience,
    commits.cut_commits,
    rolling.rolling_restarts,
    pooler.behind_pgbouncer,
]


def main() -> None:
    """Make the faults, write what was found, and fail where a bound is missed."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="some minutes: what CI runs")
    how.add_argument("--full", action="store_true", help="all of them, the default")
    parser.add_argument("names", nargs="*", help="some faults alone, by the name of their function")
    arguments = parser.parse_args()
    chosen = [
        fault
        for fault in (QUICK if arguments.quick else FULL)
        if not arguments.names or fault.__name__ in arguments.names
    ]
    begin = time.monotonic()
    with open_stage() as stage:
        figures = [figure for fault in chosen for figure in make(fault, stage)]
        figures += make(tales.tell_nothing, stage)
    write(figures)
    sys.stdout.write(table(sorted(figures, key=lambda figure: figure.number)))
    sys.stdout.write(f"{time.monotonic() - begin:.0f} s\n")
    sys.exit(not all(figure.holds for figure in figures))


def make(fault: Fault, stage: Stage) -> list[Figure]:
    """Make one fault, and say how long that took."""
    begin = time.monotonic()
    found = fault(stage)
    sys.stderr.write(f"{fault.__name__}: {time.monotonic() - begin:.1f} s\n")
    return found if isinstance(found, list) else [found]


if __name__ == "__main__":
    main()
