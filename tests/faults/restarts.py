"""PostgreSQL goes away and comes back: killed, stopped, silent; and what was acknowledged stays."""

import time
from collections.abc import Callable, Sequence
from secrets import token_hex

from tests.faults.answer import Answer
from tests.faults.app import DEADLINE
from tests.faults.figure import Figure, Measure, none
from tests.faults.load import Load, loading
from tests.faults.sets import check, history
from tests.faults.stage import Database, Server, Stage, connect, names, tables
from tests.proxy import proxied

CLIENTS = 8


def restarts(stage: Stage) -> list[Figure]:
    """Restart it under load, by SIGKILL and in order, and while nobody asks."""
    with stage.database() as database:
        url = tables(database)
        with stage.server(url) as server:
            ready: list[tuple[float, float]] = []
            with loading(*reads_and_writes(stage, server, seconds=9)) as (reading, writing):
                for end in (database.kill, database.stop, database.kill):
                    time.sleep(1.5)
                    ready.append(restart(database, end))
                reads, writes = stage.note(reading.answers()), stage.note(writing.answers())
            verdict = check(history(writes), names(url))
            idle = idle_restart(stage, database, server)
    answers = [*reads, *writes]
    return [
        Figure(
            1,
            "What was acknowledged is there when PostgreSQL was killed, and what failed is not",
            [
                Measure("acknowledged", sum(answer.is_good for answer in writes), at_least=1),
                none("lost", len(verdict.lost)),
                none("there though said to have failed", len(verdict.revived)),
                none("there twice, or from nowhere", len(verdict.doubled | verdict.invented)),
                control(stage),
            ],
        ),
        Figure(
            9,
            "A restart of PostgreSQL is 503 while it lasts, and nothing after",
            [
                Measure("refused meanwhile", sum(answer.is_refusal for answer in answers)),
                none("other errors, and no answer", sum(a.has_failed for a in answers)),
                none("not served once it was ready", sum(not_served(answers, *at) for at in ready)),
                none("not served after a restart while nobody asked", idle),
            ],
        ),
    ]


def reads_and_writes(stage: Stage, server: Server, *, seconds: float) -> Sequence[Load]:
    """Return what is asked meanwhile."""
    common = {"ports": [server.port], "seconds": seconds, "clients": CLIENTS, "pause": 0.02}
    path = f"/item?name={stage.secret}-{token_hex(3)}-{{n}}"
    return [
        Load(**common, path=path, secret=stage.secret),  # type: ignore[arg-type]
        Load(**common, path=path, method="POST", secret=stage.secret),  # type: ignore[arg-type]
    ]


def restart(database: Database, end: Callable[[], None]) -> tuple[float, float]:
    """End PostgreSQL and start it again; return when it was ready, and a while later."""
    end()
    time.sleep(0.3)
    database.start()
    ready = time.monotonic()
    time.sleep(0.5)
    return ready, time.monotonic()


def not_served(answers: Sequence[Answer], begin: float, end: float) -> int:
    """Count the answers to what was asked in a time that are no success."""
    return sum(not answer.is_good for answer in answers if begin <= answer.at < end)


def idle_restart(stage: Stage, database: Database, server: Server) -> int:
    """Restart PostgreSQL while nobody asks; return how many of the next requests fail."""
    restart(database, database.stop)
    answers = stage.ask(*reads_and_writes(stage, server, seconds=0.5))
    return sum(not answer.is_good for answer in answers)


def control(stage: Stage) -> Measure:
    """Kill one that acknowledges what it has not written: the checker has to see that."""
    with stage.database(synchronous_commit="off", wal_writer_delay="10s") as database:
        url = tables(database)
        with stage.server(url) as server, connect(url) as connection:
            connection.execute("CHECKPOINT")
            _, write = reads_and_writes(stage, server, seconds=1)
            answers = stage.ask(write)
            database.kill()
            database.start()
            lost = check(history(answers), names(url)).lost
    return Measure("lost by one that does not keep its word", len(lost), at_least=1)


def silence(stage: Stage) -> Figure:
    """Let PostgreSQL be silent, its sockets open, and come back."""
    with stage.database() as database:
        direct = tables(database)
        with proxied(direct) as (proxy, url):
            through = url.render_as_string(hide_password=False)
            with stage.server(through) as server:
                loads = reads_and_writes(stage, server, seconds=9)
                with loading(*loads) as under_way:
                    time.sleep(2)
                    proxy.silence()
                    time.sleep(2 * DEADLINE)
                    proxy.heal()
                    healed = time.monotonic()
                    answers = [a for one in under_way for a in stage.note(one.answers())]
    late = [answer.at - healed for answer in answers if not answer.is_good]
    return Figure(
        11,
        f"Nobody waits longer for a silent database than {DEADLINE:g} s, and it heals at once",
        [
            Measure("longest answer", max(a.seconds for a in answers), "s", at_most=DEADLINE + 0.2),
            none("errors but 503 and 504", sum(a.has_failed and a.status != 504 for a in answers)),
            Measure("last one not served, after", max(0.0, *late), "s", at_most=1.0),
        ],
    )
