"""A list of any length as one JSON array, in constant memory."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from stillroom.manager import DatabaseSessionManager

PART = 2_000
"""How many rows are read at a time; two parts at most are in memory."""


class JSONArrayResponse(StreamingResponse):
    """Send rows as a JSON array, read part by part from a server-side cursor.

    `read` gets a read session of the response's own, for the unit of work has ended when a
    response is sent, and the size of a part. It yields rows, whose response model is `model`; or,
    without a model, their JSON with commas between them, as `JSONSelect.in_parts` does. The first
    part is read before the response starts, so a database that is away is an error
    response. A list of one part is sent whole; an error later on cuts the response, so that no
    client takes half a list for the whole. A client that leaves ends the query.
    """

    media_type = "application/json"

    def __init__(
        self,
        manager: DatabaseSessionManager,
        read: Callable[[AsyncSession, int], AsyncGenerator[Sequence[Any]]],
        model: type[Any] | None = None,
    ) -> None:
        self._row: TypeAdapter[Any] | None = None if model is None else TypeAdapter(model)
        self._manager = manager
        self._read = read
        self._is_whole = False
        super().__init__(content=())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the first part, then send."""
        async with aclosing(self._parts()) as parts:
            first = await anext(parts)
            if self._is_whole:
                self.headers["content-length"] = str(len(first))
            self.body_iterator = _chain(first, parts)
            await super().__call__(scope, receive, send)

    async def _parts(self) -> AsyncGenerator[bytes]:
        # One part is held back: only when the rows end is it known to be the last.
        opening, held = b"[", b""
        async with (
            self._manager.session(read_only=True) as session,
            aclosing(self._read(session, PART)) as parts,
        ):
            async for rows in parts:
                if not rows:
                    continue
                if held:
                    yield opening + held
                    opening = b","
                held = bytes(rows) if self._row is None else _dump(self._row, rows)
        self._is_whole = opening == b"["
        yield (opening + held if held else opening) + b"]"


def _dump(model: TypeAdapter[Any], rows: Sequence[Any]) -> bytes:
    validate, dump = model.validate_python, model.dump_json
    return b",".join([dump(validate(row, from_attributes=True)) for row in rows])


async def _chain(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part
