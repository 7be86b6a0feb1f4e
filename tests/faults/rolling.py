"""Servers are started anew, one after the other, and nobody notices."""

import time
from contextlib import ExitStack

from tests.faults.figure import Figure, Measure, none
from tests.faults.load import Load, loading
from tests.faults.stage import Stage, connect, tables

RESTARTS = 50
CLIENTS = 8
GRACE = 8.0
"""Seconds that `stillroom serve` gives requests to end, by default."""


def rolling_restarts(stage: Stage) -> Figure:
    """Stop one of two servers under load and start it on the same port; then the other."""
    took: list[float] = []
    with stage.database() as database, ExitStack() as stack:
        url = tables(database)
        servers = [stack.enter_context(stage.server(url)) for _ in range(2)]
        ports = [server.port for server in servers]
        path = f"/item?name={stage.secret}-{{n}}"
        common = {"seconds": RESTARTS * 3.5 + 5, "clients": CLIENTS // 4, "secret": stage.secret}
        loads = [
            Load(ports=order, method=method, path=path.replace("-", f"-{order[0]}-"), **common)  # type: ignore[arg-type]
            for order in (ports, ports[::-1])
            for method in ("GET", "POST")
        ]
        with loading(*loads) as under_way:
            ends = time.monotonic() + RESTARTS * 3.5
            while len(took) < RESTARTS and time.monotonic() < ends:
                number = len(took) % 2
                took.append(servers[number].stop())
                servers[number] = stack.enter_context(stage.server(url, port=ports[number]))
            answers = [a for one in under_way for a in stage.note(one.answers())]
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
