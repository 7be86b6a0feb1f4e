"""An asynchronous session that makes its Session when something asks for it."""

from functools import cached_property
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session


class DeferredSession(AsyncSession):
    """Be an AsyncSession whose `sync_session` comes into being at its first use.

    To make one and to end it costs as much as a small statement, and who asks the engine for one
    answer needs none. All that AsyncSession has is there, `info` before there is a Session.
    """

    def __init__(self, bind: AsyncEngine, *, info: dict[Any, Any], **options: Any) -> None:
        """Take an engine, and what AsyncSession takes besides."""
        self._engine = bind
        self._info = dict(info)
        self._options = options
        self._is_closed = False

    @property
    def info(self) -> dict[Any, Any]:
        """Return what is noted of the session, which is the `info` of its Session too."""
        return self._info

    @property
    def is_made(self) -> bool:
        """Say whether something has asked for the Session."""
        return "_proxied" in self.__dict__

    def in_transaction(self) -> bool:
        """Say whether a transaction is in progress."""
        return self.is_made and super().in_transaction()

    def close_at_rest(self) -> None:
        """Close, without a turn of the event loop, where there is nothing to roll back."""
        self._is_closed = True
        if self.is_made:
            self.sync_session.close()

    @cached_property
    def sync_session(self) -> Session:  # type: ignore[override]
        """Return the Session; it is closed where this session was before it was made."""
        return self._proxied

    # What AsyncSession asks for the Session in all its methods.
    @cached_property
    def _proxied(self) -> Session:  # type: ignore[override]
        super().__init__(self._engine, **self._options)
        made = self.sync_session
        made.info = self._info
        if self._is_closed:
            made.close()
        return made
