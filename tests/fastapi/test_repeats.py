"""The log of a service that is asked for more than it can do can be read."""

import asyncio
import logging

import pytest

from stillroom.fastapi import repeats
from stillroom.fastapi.repeats import Repeats

logger = logging.getLogger("stillroom.tests")


async def test_what_is_alike_is_a_line_a_second(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is told at once, the others are counted, and none is forgotten."""
    monkeypatch.setattr(repeats, "_SECOND", 0.05)
    told = Repeats(logger)
    for number in range(1000):
        told.log("503 pool_timeout", "GET /%d", number)
    told.log("504 deadline", "POST /")
    assert caplog.messages == ["GET /0", "POST /"]

    async with asyncio.timeout(10):
        while len(caplog.messages) < 3:  # noqa: ASYNC110  (the log tells nobody)
            await asyncio.sleep(0.01)

    assert caplog.messages[2] == "503 pool_timeout: 999 more in the last second"
    told.log("503 pool_timeout", "GET /again")
    assert len(caplog.messages) == 3


def test_another_event_loop_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    """One that has ended would never have told of what it had counted."""
    told = Repeats(logger)

    async def log(line: str) -> None:
        told.log("503 pool_timeout", line)

    asyncio.run(log("first"))
    asyncio.run(log("second"))

    assert caplog.messages == ["first", "second"]
