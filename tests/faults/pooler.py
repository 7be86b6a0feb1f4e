"""Many requests behind PgBouncer in transaction mode, of both kinds."""

import psycopg

from stillroom.postgres import temporary_cluster
from tests.faults.figure import Figure, Measure, none
from tests.faults.load import Load
from tests.faults.stage import Stage, create_tables_of
from tests.pgbouncer import DEBIAN, LATER, SESSIONS, run_pgbouncer

REQUESTS = 100_000
CLIENTS = 8


def behind_pgbouncer(stage: Stage) -> list[Figure]:
    """Ask until there were so many requests, half of them at each of two PgBouncers."""
    measures: list[Measure] = []
    with temporary_cluster() as cluster:
        for number, kind in enumerate((DEBIAN, LATER)):
            cluster.create_database(f"behind_{number}")
            direct = cluster.url(f"behind_{number}")
            create_tables_of(direct)
            with run_pgbouncer(kind, direct) as pgbouncer:
                url = pgbouncer.url(direct)
                with stage.server(url, pool_size=CLIENTS) as server:
                    count = failed = 0
                    while count < REQUESTS / 2:
                        answers = stage.ask(*reads_and_writes(server.port, f"{number}-{count}"))
                        count += len(answers)
                        failed += sum(not answer.is_good for answer in answers)
                most = most_prepared(url.replace("postgresql+asyncpg:", "postgresql:"))
            measures += [
                Measure(f"requests, {kind}", count, at_least=REQUESTS / 2),
                none("not served", failed),
                Measure("most prepared statements of a session", most, at_most=20),
            ]
    return [Figure(17, "Behind PgBouncer in transaction mode no request fails", measures)]


def reads_and_writes(port: int, prefix: str) -> list[Load]:
    """Return ten seconds of what is asked."""
    path = f"/item?name={prefix}-{{n}}"
    return [
        Load(ports=[port], method=method, path=path, seconds=10, clients=CLIENTS // 2)
        for method in ("GET", "POST")
    ]


def most_prepared(url: str) -> int:
    """Return the most prepared statements that a session behind PgBouncer has."""
    held = [psycopg.connect(url, prepare_threshold=None) for _ in range(SESSIONS)]
    counts: list[int] = []
    for connection in held:  # each holds one session, for its transaction is open
        row = connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone()
        counts.append(row[0] if row else 0)
    for connection in held:
        connection.close()
    return max(counts)
