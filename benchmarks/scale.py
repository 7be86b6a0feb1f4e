"""Measure what more connections, workers and rows change for the service."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import count
from typing import Any, cast

import asyncpg
import machine
from contender import CONNECTIONS, SERVICE, WARM, Contender, migrate, serve_users
from load import Application, Load, require_wrk
from report import Report, Row, Table
from rounds import interleave, is_quick

from stillroom.postgres import temporary_cluster

METHOD = """\
The users service, run:server, below `stillroom serve`, on one PostgreSQL beside it that is reached
by a unix socket, its data in memory and nothing synced. wrk asks for {seconds} s a figure, after
{warm} s that do not count; the tables have the median, minimum and maximum of {rounds} rounds.

Connections: get one of 1,000 users, each number of connections with one worker and with two, in an
order that changes from round to round; a rate is that of the requests that were served. wrk,
PostgreSQL and the workers share two processors: a second worker has what the others leave. Latency
is that of wrk, from the request to the whole answer.

Rows: by {connections} connections, one worker, the table grows from each size to the next; get one
asks for any of 1,000 users from all over it."""

NUMBERS = (1, 4, 16, 64, 256)
SIZES = (1_000, 10_000, 100_000, 1_000_000, 5_000_000)
QUICK_SIZES = (1_000, 100_000)


def main() -> None:
    """Measure, and write the results."""
    require_wrk()
    quick = is_quick(__doc__)
    seconds, rounds, sizes = (2, 2, QUICK_SIZES) if quick else (3, 5, SIZES)
    before = machine.load()
    with ExitStack() as stack:
        cluster = stack.enter_context(temporary_cluster(settings={"max_connections": "200"}))
        migrate(cluster)
        one, two = (
            stack.enter_context(
                serve_users(
                    workers,
                    Application("run:server", SERVICE),
                    cluster,
                    f"stillroom serve --workers {workers}",
                )
            )
            for workers in (1, 2)
        )
        tables = [
            *_connections({"1 worker": one, "2 workers": two}, seconds=seconds, rounds=rounds),
            *_sizes(one, sizes, seconds=seconds, rounds=rounds),
        ]
    Report(
        "scale",
        "What do more connections, workers and rows change?",
        METHOD.format(seconds=seconds, warm=WARM, rounds=rounds, connections=CONNECTIONS),
        machine.describe(before),
        tables,
        is_busy=machine.is_busy(),
    ).write()


def _connections(
    services: Mapping[str, Contender], *, seconds: int, rounds: int
) -> Sequence[Table]:
    ids = {name: service.prepare(1000) for name, service in services.items()}
    methods = {
        f"{number} connection{'s'[: number - 1]}, {name}": partial(
            _load, service, "get", ids[name], connections=number, seconds=seconds
        )
        for name, service in services.items()
        for number in NUMBERS
    }
    found = interleave(methods, rounds)
    return [
        _table("get one", "requests/s", found, "rate"),
        _table("get one, median latency", "ms", found, "median", 1000),
        _table("get one, 99th percentile of latency", "ms", found, "late", 1000),
        _table("get one, refused with 503", "%", found, "refused", 100),
    ]


def _sizes(
    service: Contender, sizes: Sequence[int], *, seconds: int, rounds: int
) -> Sequence[Table]:
    gets: dict[str, list[Load]] = {}
    creates: dict[str, list[Load]] = {}
    service.prepare(0)
    for size in sizes:
        ids = asyncio.run(_grow(service.url, size))
        load = partial(_load, service, ids=ids, connections=CONNECTIONS, seconds=seconds)
        name = f"{size:,} rows"
        found = interleave({work: partial(load, work=work) for work in ("get", "create")}, rounds)
        gets[name], creates[name] = found["get"], found["create"]
    return [
        _table("get one", "requests/s", gets, "rate"),
        _table("create", "requests/s", creates, "rate"),
    ]


def _load(
    service: Contender, work: str, ids: Sequence[str], *, connections: int, seconds: int
) -> Load:
    load = partial(service.server.load, work, ids, connections=connections, may_refuse=True)
    load(seconds=WARM, prefix=f"scale-{next(_numbers)}-")
    return load(seconds=seconds, prefix=f"scale-{next(_numbers)}-")


async def _grow(url: str, size: int) -> list[str]:
    """Have so many users or a few more, which were created; return the ids of some."""
    connection = await cast("Any", asyncpg).connect(url)
    there = await connection.fetchval("SELECT count(*) FROM users")
    await connection.execute(
        "INSERT INTO users (id, email, full_name) SELECT gen_random_uuid(), "
        "'user' || n || '@example.com', 'Grace Hopper' FROM generate_series($1::int, $2) AS n",
        there,
        size - 1,
    )
    await connection.execute("VACUUM ANALYZE users")
    rows = await connection.fetch("SELECT id FROM users ORDER BY random() LIMIT 1000")
    await connection.close()
    print(f"{size:,} rows", file=sys.stderr)
    return [row["id"].hex for row in rows]


def _table(
    title: str, unit: str, found: Mapping[str, Sequence[Load]], figure: str, factor: float = 1
) -> Table:
    rows = [
        Row(name, [factor * float(getattr(load, figure)) for load in loads])
        for name, loads in found.items()
    ]
    return Table(title, unit, rows)


_numbers = count(1)


if __name__ == "__main__":
    main()
