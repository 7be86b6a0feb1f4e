"""Who waits for a turn, and how long."""

import asyncio

from stillroom.testing.sandbox.gate import Gate
from stillroom.testing.sandbox.session import Session


async def test_a_long_queue_is_waited_for() -> None:
    """The wait is for one owner: those who come and go may take longer than that together."""
    gate = Gate(wait=0.15)

    async def write(number: int) -> int:
        session = Session(number)
        async with gate.turn(session):
            gate.own(session)
        await asyncio.sleep(0.05)
        async with gate.turn(session):
            gate.release(session)
        return number

    assert await asyncio.gather(*(write(number) for number in range(8))) == list(range(8))
