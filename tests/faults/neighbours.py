"""An error of one request, and the next one on the same connection."""

import asyncio

from tests.faults.answer import Answer
from tests.faults.client import Client
from tests.faults.figure import Figure, Measure, none
from tests.faults.stage import Stage

TIMES = 1000


def after_a_mistake(stage: Stage) -> Figure:
    """Ask on a connection right after a 500 on it, without opening another one."""

    async def ask(port: int) -> list[Answer]:
        client = Client([port], stage.secret)
        answers: list[Answer] = []
        for _ in range(TIMES):
            answers.append(await client.ask("GET", f"/mistake?name={stage.secret}"))
            answers.append(await client.ask("GET", "/item?name=nothing"))
        return answers

    with stage.service() as (_, server):
        answers = stage.note(asyncio.run(ask(server.port)))
    return Figure(
        21,
        "Nobody is hit by somebody else's 500 on the same connection",
        [
            Measure("500", sum(answer.status == 500 for answer in answers), at_least=TIMES),
            none("next ones that were hit", sum(not answer.is_good for answer in answers[1::2])),
        ],
    )
