"""A watch over tests that override `get_db`: writes that nobody commits are an error."""

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_session
from sqlalchemy.orm import ORMExecuteState, Session
from starlette.types import Scope

from stillroom.errors import UncommittedWritesError
from stillroom.session import has_writes


class OverrideWatch:
    """Note the sessions that an override of `get_db` opens during a request.

    The route commits its own session; of one that an override brings it knows nothing. Without
    the watch the client would be told 200, and the rows would be rolled back a moment later.
    """

    def __init__(self, scope: Scope, dependency: type) -> None:
        """Watch the request, if an instance of `dependency` is overridden in its application."""
        overrides: dict[Any, Any] = getattr(scope.get("app"), "dependency_overrides", {})
        self.are_there = any(isinstance(key, dependency) for key in overrides)
        """Whether a session comes from an override."""
        self._sessions: list[Session] = []
        self._uncommitted: list[Session] = []
        self._committed: list[Session] = []
        self._token: Token[list[Session] | None] | None = None

    def __enter__(self) -> Self:
        """Begin to note sessions."""
        if self.are_there:
            self._token = _begun.set(self._sessions)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Note no more."""
        if self._token is not None:
            _begun.reset(self._token)

    async def look(self) -> None:
        """See which sessions have written, while they are open."""
        for session in self._sessions:
            if await _has_writes(session):
                self._uncommitted.append(session)
                event.listen(session, "after_commit", self._committed.append)

    def check(self) -> None:
        """Raise UncommittedWritesError when one of them has not committed since."""
        if any(session not in self._committed for session in self._uncommitted):
            raise UncommittedWritesError(_MESSAGE)


async def _has_writes(session: Session) -> bool:
    asynchronous = async_session(session)
    if asynchronous is None:  # a synchronous session: what is not flushed can be seen
        return bool(session.new or session.dirty or session.deleted)
    return await has_writes(asynchronous)


def _note(session: Session, *_: object) -> None:
    begun = _begun.get()
    if begun is not None and session not in begun:
        begun.append(session)


def _note_use(state: ORMExecuteState) -> None:
    _note(state.session)


# A session that a fixture brings has often begun before the request: its use counts as well.
event.listen(Session, "after_begin", _note)
event.listen(Session, "before_flush", _note)
event.listen(Session, "do_orm_execute", _note_use)

_begun: ContextVar[list[Session] | None] = ContextVar("stillroom.begun", default=None)

_MESSAGE = (
    "The view has written, or locked rows, through a session that an override of get_db brought, "
    "and nobody has committed it: the client would be told that all went well. Remove "
    "the override from app.dependency_overrides: the route commits the session of the real "
    "get_db. To use another database in a test, give its URL to sessionmanager.init()."
)
