"""Measure which server answers the most requests, with the service as shipped."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version

import machine
from contender import CONNECTIONS, SERVICE, WARM, Contender, Work, migrate, serve_users
from load import UVICORN, Application, Load, require_wrk
from report import Report, Row, Table
from rounds import interleave, is_quick

from stillroom.postgres import temporary_cluster

METHOD = """\
The users service, run:server, each time on a database of its own in one PostgreSQL beside it,
reached by a unix socket, its data in memory and nothing synced. wrk asks by {connections}
connections for {seconds} s a figure, after {warm} s that do not count. A round has each work of
each server once, in an order that changes; the table has the median, minimum and maximum of
{rounds} rounds.

All are without a log of requests. uvicorn has uvloop and httptools, `stillroom serve` is uvicorn
with a supervisor and a stop of its own; granian has uvloop and no WebSockets, in the mode that it
chooses by itself (mt) and in the other (st). wrk and PostgreSQL run on the same processors: a
second worker has what they leave, and the processor time of a request, of all processes of a server
together, says more than the rate.

Versions: {versions}."""

GRANIAN = (
    "granian --interface asgi --http 1 --no-ws --loop uvloop --backlog 2048 --log-level warning"
)

COMMANDS = {
    f"{name}, {workers} worker{'s'[: workers - 1]}": f"{command} --workers {workers}"
    for workers in (1, 2)
    for name, command in {
        "Stillroom: serve": "stillroom serve",
        "uvicorn": UVICORN,
        "granian": GRANIAN,
        "granian, st": f"{GRANIAN} --runtime-mode st",
    }.items()
}

WORKS = [Work("get one", "get", 1000), Work("list 20", "list", 20)]


def main() -> None:
    """Measure, and write the results."""
    require_wrk()
    seconds, rounds = (2, 2) if is_quick(__doc__) else (4, 7)
    before = machine.load()
    with ExitStack() as stack:
        cluster = stack.enter_context(temporary_cluster(settings={"max_connections": "300"}))
        migrate(cluster)
        contenders = {
            name: stack.enter_context(
                serve_users(number, Application("run:server", SERVICE), cluster, command)
            )
            for number, (name, command) in enumerate(COMMANDS.items())
        }
        found = {
            work.name: _measure(contenders, work, seconds=seconds, rounds=rounds) for work in WORKS
        }
        memory = [Row(name, [it.server.memory]) for name, it in contenders.items()]
    versions = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "uvloop", "granian"))
    Report(
        "servers",
        "Which server answers the most requests?",
        METHOD.format(
            connections=CONNECTIONS, warm=WARM, seconds=seconds, rounds=rounds, versions=versions
        ),
        machine.describe(before),
        [*_tables(found), Table("peak memory of all processes", "MB", memory)],
        is_busy=machine.is_busy(),
    ).write()


def _measure(
    contenders: Mapping[str, Contender], work: Work, *, seconds: int, rounds: int
) -> Mapping[str, Sequence[Load]]:
    print(work.name, file=sys.stderr)
    measure = partial(Contender.measure, work=work, seconds=seconds)
    return interleave({name: partial(measure, it) for name, it in contenders.items()}, rounds)


def _tables(found: Mapping[str, Mapping[str, Sequence[Load]]]) -> list[Table]:
    figures = [("", "requests/s", "rate", 1), (", processor time a request", "ms", "cpu", 1000)]
    return [
        Table(
            f"{work}{title}",
            unit,
            [
                Row(name, [factor * float(getattr(load, figure)) for load in loads])
                for name, loads in of_work.items()
            ],
        )
        for work, of_work in found.items()
        for title, unit, figure, factor in figures
    ]


if __name__ == "__main__":
    main()
