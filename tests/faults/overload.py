"""Ten times as many requests as can be served, and clients without patience."""

import time
from collections.abc import Sequence

from tests.faults.answer import Answer
from tests.faults.figure import Figure, Measure, none, percentile
from tests.faults.load import Load
from tests.faults.stage import Stage

POOL = 5
WORK = "/sleep?seconds=0.1"
IN_TIME = 1.0
"""After how many seconds an answer is worth nothing any more."""

SECONDS = 10.0
PATIENCE = 0.25


def overload(stage: Stage) -> list[Figure]:
    """Offer ten times the peak that was measured just before."""
    with stage.service(pool_size=POOL) as (_, server):
        alone = stage.ask(Load(ports=[server.port], path=WORK, rate=3 * POOL, seconds=5))
        peak = goodput(
            stage.ask(Load(ports=[server.port], path=WORK, clients=2 * POOL, seconds=5)), 5
        )
        load = Load(
            ports=[server.port],
            path=f"{WORK}&name={stage.secret}",
            rate=10 * peak,
            seconds=SECONDS,
            secret=stage.secret,
        )
        answers = stage.ask(load)
    unloaded = percentile([answer.seconds for answer in alone], 0.99)
    good = [answer.seconds for answer in answers if answer.is_good]
    refused = [answer for answer in answers if answer.is_refusal]
    return [
        Figure(
            3,
            "At ten times overload there is no 5xx but 503 and 504, and each 503 says when",
            [
                Measure("requests", len(answers)),
                none("other errors, and no answer", sum(a.has_failed for a in answers)),
                none("503 without Retry-After", sum(not a.says_when for a in refused)),
            ],
        ),
        Figure(
            4,
            f"At ten times overload as much is answered within {IN_TIME:g} s as at the peak",
            [
                Measure("peak", peak, "/s"),
                Measure("of it at overload", goodput(answers, SECONDS) / peak, at_least=0.9),
            ],
        ),
        Figure(
            5,
            "Who is served is served soon, and who is not is told at once",
            [
                Measure("p99 unloaded", unloaded, "s"),
                Measure("p99 of the served", percentile(good, 0.99), "s", at_most=3 * unloaded),
                Measure(
                    "p99 of the refused",
                    percentile([answer.seconds for answer in refused], 0.99),
                    "s",
                    at_most=0.1,
                ),
            ],
        ),
    ]


def recovery(stage: Stage) -> Figure:
    """Let the clients of an overload leave, and see how long it is felt."""
    with stage.service(pool_size=POOL) as (_, server):
        calm = Load(ports=[server.port], path=WORK, rate=3 * POOL, seconds=5)
        unloaded = percentile([answer.seconds for answer in stage.ask(calm)], 0.99)
        storm = Load(ports=[server.port], path=WORK, rate=100 * POOL, seconds=5, patience=PATIENCE)
        stage.ask(storm)
        over = time.monotonic()
        answers = stage.ask(calm)
    late = [a.at - over for a in answers if not a.is_good or a.seconds > 3 * unloaded]
    return Figure(
        6,
        "After an overload whose clients have left all is as before",
        [Measure("last late answer, after", max(late, default=0.0), "s", at_most=1.0)],
    )


def impatience(stage: Stage) -> Figure:
    """Let twice as many clients ask as can be served within their patience."""
    found: list[float] = []
    with stage.service(pool_size=POOL) as (_, server):
        for clients in (3 * POOL, 6 * POOL):
            load = Load(
                ports=[server.port],
                path="/sleep?seconds=0.05",
                clients=clients,
                seconds=10,
                patience=PATIENCE,
                pause=0.05,
            )
            found.append(goodput(stage.ask(load), 10))
    once, twice = found
    return Figure(
        7,
        f"Twice as many clients, each gone after {PATIENCE * 1000:.0f} ms, get as much done",
        [
            Measure("by once as many", once, "/s"),
            Measure("of it by twice as many", twice / once, at_least=0.9),
        ],
    )


def goodput(answers: Sequence[Answer], seconds: float) -> float:
    """Return how many answers a second are good, and come in time."""
    return sum(answer.is_good and answer.seconds <= IN_TIME for answer in answers) / seconds
