"""An answer below 400 means committed: to who reads next, and where a COMMIT fails or is cut."""

import asyncio
import time
from collections.abc import Sequence
from uuid import uuid4

from tests.faults.answer import Answer
from tests.faults.client import Client
from tests.faults.figure import Figure, Measure, none
from tests.faults.load import Load
from tests.faults.sets import check, history
from tests.faults.stage import Stage, names, tables
from tests.proxy import proxied

PAIRS = 1000
FAILING = 200
CUTS = 1000
PATIENCE = 5.0
"""Seconds for which a client with a key asks again."""


def write_then_read(stage: Stage) -> Figure:
    """Read from another connection what was just written, and write what fails at COMMIT."""
    with stage.service() as (url, server):
        missing = asyncio.run(count_missing([server.port], PAIRS))
        path = f"/slot?name={stage.secret}"
        twice = Load(
            ports=[server.port],
            path=path,
            method="POST",
            rate=100,
            seconds=FAILING / 100,
            secret=stage.secret,
        )
        answers = stage.ask(twice)
        there = len(names(url, "slots"))
    return Figure(
        18,
        "Who reads after a write was answered finds it, and a COMMIT that fails is no success",
        [
            Measure("written and read", PAIRS),
            none("not found", missing),
            Measure("refused at COMMIT", sum(answer.status == 409 for answer in answers)),
            none("of them answered 2xx", sum(a.is_good for a in answers) - there),
        ],
    )


async def count_missing(ports: Sequence[int], pairs: int, clients: int = 4) -> int:
    """Write and read so often; return how often what was written was not found."""

    async def ask(client: int) -> int:
        writer, reader = Client(ports), Client(ports)
        missing = 0
        for number in range(pairs // clients):
            path = f"/item?name={client}-{number}"
            assert (await writer.ask("POST", path)).is_good
            missing += not (await reader.ask("GET", path)).is_there
        return missing

    return sum(await asyncio.gather(*(ask(client) for client in range(clients))))


def cut_commits(stage: Stage) -> Figure:
    """Lose the answer to each COMMIT, with a key and without; ask again with the key."""
    with stage.database() as database:
        direct = tables(database)
        with (
            proxied(direct) as (proxy, url),
            stage.server(url.render_as_string(hide_password=False)) as server,
        ):
            proxy.cut(b"COMMIT", times=CUTS)
            pairs = asyncio.run(ask_twice([server.port], CUTS // 2))
            bare = Load(
                ports=[server.port],
                path="/item?name=bare-{n}",
                method="POST",
                rate=20,
                seconds=CUTS / 2 / 20,
            )
            answers = stage.ask(bare)
            cuts = proxy.cuts
        firsts = [first for first, _, _ in pairs]
        verdict = check(history([*firsts, *answers]), names(direct))
    return Figure(
        2,
        "A COMMIT whose answer is lost is answered as PostgreSQL ended it",
        [
            Measure("cut", cuts, at_least=CUTS * 0.9),
            none("not the first answer, asked again with the key", sum(not it for *_, it in pairs)),
            none("acknowledged and lost", len(verdict.lost)),
            none("there twice", len(verdict.doubled)),
            none("said to have failed, and there", len(verdict.revived)),
            Measure("said to be unknown", sum(a.says_unknown for a in [*firsts, *answers])),
        ],
    )


async def ask_twice(
    ports: Sequence[int], times: int, clients: int = 4
) -> list[tuple[Answer, Answer, bool]]:
    """Ask twice with the same key; say of each pair whether the second answer is the first."""

    async def ask(client: int) -> list[tuple[Answer, Answer, bool]]:
        asking, pairs = Client(ports), list[tuple[Answer, Answer, bool]]()
        for number in range(times // clients):
            path, key = f"/item?name=keyed-{client}-{number}", uuid4().hex
            first = await asking.ask("POST", path, key=key)
            body = asking.body
            again = await asking.ask("POST", path, key=key)
            ends = time.monotonic() + PATIENCE
            while not again.is_good and time.monotonic() < ends:
                await asyncio.sleep(0.05)
                again = await asking.ask("POST", path, key=key)
            is_same = again.is_good and (not first.is_good or asking.body == body)
            pairs.append((first, again, is_same))
        return pairs

    made = await asyncio.gather(*(ask(client) for client in range(clients)))
    return [pair for pairs in made for pair in pairs]
