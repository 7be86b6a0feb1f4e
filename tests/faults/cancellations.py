"""Clients that leave, at every moment of a request."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from tests.faults.client import Client
from tests.faults.figure import Figure, Measure, none
from tests.faults.stage import Stage, connect
from tests.processes import eventually

POOL = 10
EACH = 125
AT_ONCE = 5

SHAPES = [
    "GET /sleep?seconds=0.1",
    "GET /wrapped/sleep?seconds=0.1",
    "POST /add-and-sleep?seconds=0.1&name=left-{n}",
    "POST /wrapped/add-and-sleep?seconds=0.1&name=wrapped-{n}",
    "POST /slow-commit?seconds=0.1&name=commit-{n}",
    "GET /endless",
    "GET /wrapped/endless",
    "GET /item?name=read",
]
"""Where the client leaves: a query, a write, a COMMIT, a stream, some under BaseHTTPMiddleware."""

BY_THE_VIEW = "GET /limited?seconds=0.1"
"""A view that cancels its own query: SQLAlchemy gives the connection up."""

WARNINGS = ("garbage collector", "never retrieved", "never awaited", "was destroyed")


def clients_that_leave(stage: Stage) -> Figure:
    """Leave so many requests of each shape, then see what is left of them."""
    mine = "application_name = 'stillroom' AND datname = current_database()"
    active = f"SELECT count(*) FROM pg_stat_activity WHERE {mine} AND state <> 'idle'"  # noqa: S608
    made = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
    with stage.service(pool_size=POOL) as (url, server), connect(url) as database:

        def count(query: str) -> int:
            row = database.execute(query.encode()).fetchone()
            return row[0] if row else 0

        asyncio.run(leave([server.port], "GET /item?name=x", 5.0))
        before = count(made)
        for shape in SHAPES:
            asyncio.run(leave([server.port], shape, 0.05))
        replaced = count(made) - before
        asyncio.run(leave([server.port], BY_THE_VIEW, 5.0))
        by_the_view = count(made) - before - replaced
        eventually(lambda: count(active) == 0, 10)
        orphans = count(active)
        eventually(lambda: asyncio.run(body([server.port], "/in-use")) == b"0", 10)
        in_use = int(asyncio.run(body([server.port], "/in-use")))
    warnings = sum(server.log.count(warning) for warning in WARNINGS)
    return Figure(
        8,
        "Clients that leave leave nothing behind",
        [
            Measure("requests left", EACH * len(SHAPES)),
            none("connections in use after", in_use),
            none("statements that run on", orphans),
            Measure("connections replaced", replaced, at_most=10),
            Measure(f"and by {EACH} views that cancel their own query", by_the_view),
            none("warnings of the garbage collector", warnings),
        ],
    )


async def leave(ports: Sequence[int], shape: str, patience: float) -> None:
    """Ask so often for the same, some at once, and be gone after a moment."""
    method, _, path = shape.partition(" ")

    async def ask(first: int) -> None:
        for number in range(EACH // AT_ONCE):
            client = Client(ports)
            numbered = path.replace("{n}", f"{first}-{number}")
            with suppress(OSError):
                await client.ask(method, numbered, patience=patience)
            client.close()

    await asyncio.gather(*(ask(first) for first in range(AT_ONCE)))


async def body(ports: Sequence[int], path: str) -> bytes:
    """Return the body of an answer."""
    client = Client(ports)
    assert (await client.ask("GET", path)).is_good
    return client.body
