"""Who waits for a turn, and how long."""

import asyncio

import pytest

from stillroom.testing.refusal import Refusal
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


async def test_a_closed_gate_gives_no_turns() -> None:
    """Who asks for one waits until it is opened; who has one ends it."""
    gate = Gate(wait=1)
    turns: list[str] = []
    may_end = asyncio.Event()

    async def run(name: str) -> None:
        async with gate.turn(Session(1)):
            await may_end.wait()
            turns.append(name)

    early = asyncio.create_task(run("early"))
    await asyncio.sleep(0)
    with gate.closed():
        late = asyncio.create_task(run("late"))
        may_end.set()
        await gate.free()
        await early
        await asyncio.sleep(0)
        assert turns == ["early"]
    await late
    assert turns == ["early", "late"]


async def test_all_who_wait_are_dismissed() -> None:
    """Each of them learns why it gets no turn."""
    gate = Gate(wait=1)

    async def run() -> None:
        async with gate.turn(Session(1)):
            pass

    async with gate.turn(Session(2)):
        waiting = [asyncio.create_task(run()) for _ in range(2)]
        await asyncio.sleep(0)
        gate.dismiss(Refusal("over"))
        for task in waiting:
            with pytest.raises(Refusal, match="over"):
                await task
