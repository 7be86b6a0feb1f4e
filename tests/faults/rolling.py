"""Servers are started anew, one after the other, and nobody notices."""

import time
from collections.abc import Sequence
from contextlib import ExitStack

from tests.faults.answer import Answer
from tests.faults.figure import Figure, Measure, none
from tests.faults.load import Load, loading
from tests.faults.stage import Stage, connect, tables

RESTARTS = 50
CLIENTS = 8
ROUND = 40.0
"""Seconds of load at a time."""
GRACE = 8.0
"""Seconds that `stillroom serve` gives requests to end, by default."""


def rolling_restarts(stage: Stage) -> Figure:
    """Stop one of two servers under load and start it on the same port; then the other."""
    took: list[float] = []
    answers: list[Answer] = []
    with stage.database() as database, ExitStack() as stack:
        url = tables(database)
        servers = [stack.enter_context(stage.server(url)) for _ in range(2)]
        ports = [server.port for server in servers]
        while len(took) < RESTARTS:
            ends = time.monotonic() + ROUND - 10
            with loading(*reads_and_writes(stage, ports, len(took))) as under_way:
                while len(took) < RESTARTS and time.monotonic() < ends:
                    number = len(took) % 2
                    took.append(servers[number].stop())
                    servers[number] = stack.enter_context(stage.server(url, port=ports[number]))
                answers += [a for one in under_way for a in stage.note(one.answers())]
        with connect(url) as connection:
            active = "SELECT count(*) FROM pg_stat_activity WHERE state <> 'idle' AND datname = "
            row = connection.execute(
                f"{active} current_database() AND pid <> pg_backend_pid()".encode()
            ).fetchone()
    return Figure(
        12,
        "Servers that are started anew, one after the other, fail no request",
        [
            Measure("restarts", len(took), at_least=RESTARTS),
            Measure("requests", len(answers)),
            none("not served", sum(not answer.is_good for answer in answers)),
            none("statements that run on", row[0] if row else 0),
            Measure("longest stop", max(took), "s", at_most=GRACE + 1),
        ],
    )


def reads_and_writes(stage: Stage, ports: list[int], number: int) -> Sequence[Load]:
    """Return the loads of one round: each port is the first for half of the clients."""
    return [
        Load(
            ports=order,
            method=method,
            path=f"/item?name={stage.secret}-{number}-{order[0]}-{{n}}",
            seconds=ROUND,
            clients=CLIENTS // 4,
            secret=stage.secret,
        )
        for order in (ports, ports[::-1])
        for method in ("GET", "POST")
    ]
