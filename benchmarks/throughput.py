"""Measure how many requests one worker answers."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any
from uuid import UUID

import machine
import readme
from contender import CONNECTIONS, SERVICE, WARM, Contender, Work, migrate, serve_users
from load import Application, Load, require_wrk
from report import Report, Row, Table
from rounds import interleave, is_quick

from stillroom.postgres import temporary_cluster

METHOD = """\
Each application is served by `stillroom serve` (uvicorn, uvloop, httptools; one worker), with a
database of its own in one PostgreSQL beside it, reached by a unix socket, its data in memory and
nothing synced: what a commit costs on a disk is not the question. It is told so by
random_page_cost = 1.1. wrk asks it by {connections} connections for {seconds} s a figure, after
{warm} s that do not count. A round has each work of each application once, in an order that
changes; the table has the median, minimum and maximum of {rounds} rounds, a ratio is of two figures
of one round.

All answer the same three routes, and have said the same to the same requests before; contenders/
has their code, service/ Stillroom's. Each asyncpg pool has 10 connections, but the article's own of
5 and 10 more that come and go. The bare ASGI function checks nothing: it is the limit."""

SERVER = "stillroom serve"
"""The server of all: it is uvicorn, and keeps the garbage collector from what an application is."""

STILLROOM = "Stillroom: the service"
LIMIT = "bare ASGI function, asyncpg"
BARE = "FastAPI, asyncpg"
ARTICLE = "the article's code"
LITESTAR = "Litestar, advanced-alchemy"

APPLICATIONS = {
    STILLROOM: Application("run:server", SERVICE),
    LIMIT: Application("contenders.asgi:app"),
    BARE: Application("contenders.fastapi_asyncpg:app"),
    ARTICLE: Application("contenders.article:app"),
    f"{ARTICLE}, fixed pool": Application(
        "contenders.article:app", environ={"ARTICLE_POOL": "fixed"}
    ),
    "SQLModel, sync routes, psycopg": Application("contenders.sqlmodel_sync:app"),
    LITESTAR: Application("contenders.litestar_alchemy:app"),
}


WORKS = [
    Work("get one", "get", 1000, {ARTICLE: 3, BARE: 0.65, LITESTAR: 1.5}),
    Work("list 20", "list", 20, {}),
    Work("list 1,000", "list", 1000, {ARTICLE: 12, BARE: 1.8, LITESTAR: 6}),
    Work("create", "create", 1000, {ARTICLE: 2, BARE: 0.5, LITESTAR: 1.5}),
    Work("90 % get, 10 % create", "mix", 1000, {ARTICLE: 3, BARE: 0.6, LITESTAR: 1.5}),
]


def main() -> None:
    """Measure, and write the results."""
    require_wrk()
    seconds, rounds = (2, 2) if is_quick(__doc__) else (3, 5)
    before = machine.load()
    with ExitStack() as stack:
        settings = {"max_connections": "200", "random_page_cost": "1.1"}
        cluster = stack.enter_context(temporary_cluster(settings=settings))
        migrate(cluster)
        contenders = {
            name: stack.enter_context(serve_users(number, application, cluster, SERVER))
            for number, (name, application) in enumerate(APPLICATIONS.items())
        }
        _compare_answers(contenders)
        found: dict[str, Mapping[str, list[Load]]] = {}
        for work in WORKS:
            print(work.name, file=sys.stderr)
            measure = partial(Contender.measure, work=work, seconds=seconds)
            found[work.name] = interleave(
                {name: partial(measure, it) for name, it in contenders.items()}, rounds
            )
        memory = [Row(name, [it.server.memory]) for name, it in contenders.items()]
        Report(
            "throughput",
            "How many requests does one worker answer?",
            METHOD.format(connections=CONNECTIONS, warm=WARM, seconds=seconds, rounds=rounds),
            machine.describe(before),
            [*_tables(found), Table("peak memory of the server", "MB", memory)],
            is_busy=machine.is_busy(),
        ).write()
    readme.main()


def _compare_answers(contenders: Mapping[str, Contender]) -> None:
    """Raise RuntimeError where two give different answers."""
    answers: dict[str, Any] = {}
    for name, contender in contenders.items():
        ids = contender.prepare(20)
        one = json.loads(contender.server.get(f"/api/user/get-user?id={ids[3]}"))
        every = json.loads(contender.server.get("/api/user/get-users"))
        if one not in every or sorted(UUID(user["id"]).hex for user in every) != sorted(ids):
            msg = f"{name} says {one} and {every}"
            raise RuntimeError(msg)
        answers[name] = sorted((user["email"], user["full_name"]) for user in every)
    if any(answer != answers[LIMIT] for answer in answers.values()):
        msg = f"the answers differ: {answers}"
        raise RuntimeError(msg)


def _tables(found: Mapping[str, Mapping[str, Sequence[Load]]]) -> list[Table]:
    rates = [
        Table(
            work.name,
            "requests/s",
            [_row(name, it, "rate") for name, it in found[work.name].items()],
        )
        for work in WORKS
    ]
    ratios = [
        Row(
            f"{work.name}, against {name}",
            [
                a.rate / b.rate
                for a, b in zip(found[work.name][STILLROOM], found[work.name][name], strict=True)
            ],
            at_least=target,
        )
        for work in WORKS
        for name, target in work.targets.items()
    ]
    cpus = [
        Table(
            f"{work.name}, processor time of the server a request",
            "ms",
            [_row(name, it, "cpu", 1000) for name, it in found[work.name].items()],
        )
        for work in WORKS
    ]
    return [Table("Stillroom's service", "times as many", ratios), *rates, *cpus]


def _row(name: str, loads: Sequence[Load], figure: str, unit: float = 1) -> Row:
    return Row(name, [unit * float(getattr(load, figure)) for load in loads])


if __name__ == "__main__":
    main()
