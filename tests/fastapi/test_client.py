"""Whether the client of a request has left is seen without taking anything from the request."""

import asyncio
from typing import Any

from fastapi import Request

from stillroom.fastapi.client import RequestClient


def request_of(*messages: dict[str, Any]) -> Request:
    """Make a request whose server has these messages, and then no more."""
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


BODY = {"type": "http.request", "body": b"whole", "more_body": False}
PART = {"type": "http.request", "body": b"part", "more_body": True}
LEFT = {"type": "http.disconnect"}


async def test_a_client_that_leaves_is_seen() -> None:
    """It has sent its body, and then hung up."""
    async with asyncio.timeout(10):
        await RequestClient(request_of(BODY, LEFT)).wait_until_gone()


async def test_the_body_is_there_for_the_view() -> None:
    """What was looked at is read again, by whoever reads next."""
    request = request_of(BODY)
    watching = asyncio.create_task(RequestClient(request).wait_until_gone())
    await asyncio.wait({watching}, timeout=0.05)
    watching.cancel()

    assert await asyncio.wait_for(request.body(), 10) == b"whole"


async def test_a_body_under_way_is_the_view_s_to_read() -> None:
    """Nothing is known of its client, and no more than one part is held."""
    request = request_of(PART, BODY)
    watching = asyncio.create_task(RequestClient(request).wait_until_gone())
    done, _ = await asyncio.wait({watching}, timeout=0.05)
    watching.cancel()

    assert not done
    assert await asyncio.wait_for(request.body(), 10) == b"partwhole"
