"""A list of any length as one response, in constant memory."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any, ClassVar

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from stillroom.manager import DatabaseSessionManager
from stillroom.problems import sqlstate_of
from stillroom.session import ServiceSession

PART = 2_000
"""How many rows are read at a time; two parts at most are in memory."""

Read = Callable[[AsyncSession, int], AsyncGenerator[Any]]
"""Read rows by a session, in parts of so many."""


class _ListResponse(StreamingResponse):
    """Send rows that are read part by part.

    The first part is read before the response starts, so a database that is away is an error
    response. A list of one part is sent whole; an error later on cuts the response, so that no
    client takes half a list for the whole. A client that leaves ends the query, and the connection
    goes on.
    """

    opening: ClassVar[bytes]
    between: ClassVar[bytes]
    closing: ClassVar[bytes]
    empty: ClassVar[bytes]

    def __init__(
        self,
        manager: DatabaseSessionManager,
        read: Read,
        model: type[Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take what reads, from a read session of the response's own and the size of a part.

        It yields rows, whose response model is `model`; or, without a model, their JSON in pieces
        of any length, as `JSONSelect` does.
        """
        self._row: TypeAdapter[Any] | None = None if model is None else TypeAdapter(model)
        self._manager = manager
        self._read = read
        self._is_whole = False
        self._session: ServiceSession | None = None
        self._is_reading = False
        self._has_left = False
        self._has_ended = asyncio.Event()
        super().__init__(content=(), headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the first part, then send."""
        async with aclosing(self._parts()) as parts:
            first = await anext(parts)
            if not self._is_whole:
                self.body_iterator = _chain(first, parts)
                await super().__call__(scope, receive, send)
                return
        self.headers["content-length"] = str(len(first))
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": first})
        if self.background is not None:
            await self.background()

    async def listen_for_disconnect(self, receive: Receive) -> None:
        """Return when the client has left; what reads the rows is cancelled then.

        The statement under way is ended by PostgreSQL before, for one that is cancelled takes its
        connection with it.
        """
        await super().listen_for_disconnect(receive)
        self._has_left = True
        if self._session and self._is_reading and self._session.interrupt(is_reading=True):
            await asyncio.wait({asyncio.ensure_future(self._has_ended.wait())}, timeout=_STOP)

    async def stream_response(self, send: Send) -> None:
        """Send all parts; the error of a statement that was ended for who has left is none."""
        try:
            await super().stream_response(send)
        except Exception as error:
            if not self._has_left or sqlstate_of(error) != _ENDED:
                raise
        finally:
            self._has_ended.set()

    async def _parts(self) -> AsyncGenerator[bytes]:
        # One part is held back: only when the rows end is it known to be the last.
        held: bytes | None = None
        before = self.opening
        self._is_whole = True
        async with (
            self._manager.long_session(read_only=True) as session,
            aclosing(self._read(session, PART)) as parts,
        ):
            self._session = session
            self._is_reading = True
            async for part in parts if self._row is None else self._dump(self._row, parts):
                if not part:
                    continue
                if held is not None:
                    self._is_whole = self._is_reading = False
                    yield before + held
                    before = b""
                    if self._has_left:
                        return
                    self._is_reading = True
                held = part
            self._is_reading = False
        yield self.empty if held is None else b"".join((before, held, self.closing))

    async def _dump(
        self, model: TypeAdapter[Any], parts: AsyncIterator[Any]
    ) -> AsyncGenerator[bytes]:
        validate, dump = model.validate_python, model.dump_json
        before = b""
        async for rows in parts:
            if rows:
                made = [dump(validate(row, from_attributes=True)) for row in rows]
                yield before + self.between.join(made)
                before = self.between


class JSONArrayResponse(_ListResponse):
    """Send rows as one JSON array: ``JSONArrayResponse(sessionmanager, EVERY_USER.in_parts)``."""

    media_type = "application/json"
    opening, between, closing, empty = b"[", b",", b"]", b"[]"


class JSONLinesResponse(_ListResponse):
    """Send each row as a line of JSON: ``JSONLinesResponse(sessionmanager, EVERY_USER.in_lines)``.

    https://jsonlines.org
    """

    media_type = "application/jsonl"
    opening, between, closing, empty = b"", b"\n", b"\n", b""


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


_STOP = 0.2
"""Seconds that PostgreSQL has for ending a statement."""

_ENDED = "57014"  # query_canceled
