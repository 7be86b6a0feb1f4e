"""A limit to the size of a request's body."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Refuse a body of more than `max_size` bytes with 413, as soon as so much has been read.

    It counts what arrives, whatever Content-Length says, and stops reading there. FastAPI's own
    `max_body_size` answers in plain text when Content-Length is too large; this one's 413 is a
    problem like every other error.
    """

    def __init__(self, app: ASGIApp, max_size: int) -> None:
        self._app = app
        self._max_size = max_size

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its body under count."""
        size = 0

        async def receive_within_limit() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_size:
                raise HTTPException(413, f"The body has more than {self._max_size} bytes.")
            return message

        is_http = scope["type"] == "http"
        await self._app(scope, receive_within_limit if is_http else receive, send)
