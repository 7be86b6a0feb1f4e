"""What happens a thousand times a second is a line a second."""

import asyncio

import pytest

from stillroom.fastapi.repetition import Repetition


async def test_the_others_of_a_second_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """The first is logged at once, then how many there were; another name has lines of its own."""
    repetition = Repetition(seconds=0.01)
    for line in ("first", "second", "third"):
        repetition.log("503 pool_timeout", line)
    repetition.log("503 other", "of another name")
    async with asyncio.timeout(10):
        while len(caplog.messages) < 3:  # noqa: ASYNC110  (nobody tells when)
            await asyncio.sleep(0)

    assert caplog.messages == [
        "first",
        "of another name",
        "503 pool_timeout: 2 more in the last 0.01 s",
    ]


async def test_a_quiet_time_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    """Where nothing was left out nothing is summed up, and the next one is logged at once."""
    repetition = Repetition(seconds=0.01)
    repetition.log("name", "first")
    async with asyncio.timeout(10):
        while repetition._left_out:  # noqa: ASYNC110
            await asyncio.sleep(0)
    repetition.log("name", "second")

    assert caplog.messages == ["first", "second"]
