"""A response that is the row it inserts."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from fastapi import Response
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Receive, Scope, Send

from stillroom.errors import ConfigurationError
from stillroom.json import JSONInsert
from stillroom.session import ServiceSession


class InsertResponse(Response):
    """Insert a row when the unit of work commits, and answer it as JSON.

    ``return InsertResponse(NEW_USER, db, user.model_dump())``. The statement is the last of the
    unit of work; where it is the only one, it is a transaction by itself, so the request costs one
    round trip to PostgreSQL. What it raises comes after the view has ended, as an answer: a
    duplicate is a 409. Raises ConfigurationError for a status that is not committed.
    """

    media_type = "application/json"

    def __init__(
        self,
        insert: JSONInsert,
        session: AsyncSession,
        values: Mapping[str, Any],
        *,
        status_code: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Take the session of the request, and the values by the names of attributes."""
        if status_code >= 400:
            msg = f"A response of {status_code} commits nothing, so it cannot insert a row"
            raise ConfigurationError(msg)
        super().__init__(status_code=status_code, headers=headers)
        complete = insert.complete(values)
        self._work = partial(insert.run, values=complete)
        self._compiled = partial(insert.compiled, values=complete)
        self._find = partial(insert.find, values=complete) if insert.makes_key(values) else None
        self._session = session
        self._is_done = False

    @property
    def commits(self) -> bool:
        """Say whether to run it is to commit; a session that is not ours somebody else commits."""
        return isinstance(self._session, ServiceSession)

    async def run(self, *, commits: bool = True) -> None:
        """Insert the row, and commit, unless that is left to somebody who has more to write."""
        if isinstance(self._session, ServiceSession) and commits:
            self.body = await self._session.commit_with(self._work, self._find, self._compiled)
        else:
            self.body = await self._session.run_sync(lambda it: self._work(it.connection()))
        self.headers["content-length"] = str(len(self.body))
        self._is_done = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the row; raises ConfigurationError where no unit of work has committed it."""
        if not self._is_done:
            msg = (
                f"{scope['method']} {scope['path']} has returned an InsertResponse, but its route "
                "has no unit of work, so nothing was inserted. Make its router with "
                "APIRouter(route_class=UnitOfWorkRoute)."
            )
            raise ConfigurationError(msg)
        await super().__call__(scope, receive, send)
