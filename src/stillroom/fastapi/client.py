"""Whether the client of a request still waits for its answer."""

import asyncio

from fastapi import Request
from starlette.types import Message, Receive


class RequestClient:
    """Notice that the client of a request has left, without taking anything from the request."""

    def __init__(self, request: Request) -> None:
        """Take the request, which is looked at only when somebody asks."""
        self._request = request

    async def wait_until_gone(self) -> None:
        """Return when the client has left; of a body that is under way nothing is known."""
        receive = self._request._receive
        kept: list[Message] = []
        self._request._receive = _replay(kept, receive)
        is_whole = False
        while (message := await receive())["type"] != "http.disconnect":
            kept.append(message)
            if is_whole or message.get("more_body"):
                # The view reads on; and one that sends more than the whole says nothing at all.
                await asyncio.Event().wait()
            is_whole = True
        kept.append(message)


def _replay(kept: list[Message], receive: Receive) -> Receive:
    async def replay() -> Message:
        return kept.pop(0) if kept else await receive()

    return replay
