"""A watch over tests that override `get_db`: writes that nobody commits are an error."""

from contextlib import AsyncExitStack
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import async_session
from sqlalchemy.orm import Session
from starlette.types import Scope

from stillroom.errors import UncommittedWritesError


class OverrideWatch:
    """Note the sessions that an override of `get_db` opens during a request.

    The route commits its own session; of one that an override brings it knows nothing. Without
    the watch the client would be told 200, and the rows would be rolled back a moment later.
    """

    def __init__(self, scope: Scope, dependency: type) -> None:
        """Watch the request, if an instance of `dependency` is overridden in its application."""
        overrides: dict[Any, Any] = getattr(scope.get("app"), "dependency_overrides", {})
        self._overridden = any(isinstance(key, dependency) for key in overrides)
        self._scope = scope
        self._sessions: list[Session] = []
        self._token: Token[list[Session] | None] | None = None

    def __enter__(self) -> Self:
        """Begin to note sessions."""
        if self._overridden:
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

    async def check(self) -> None:
        """Raise UncommittedWritesError, before the response is sent, when writes would be lost.

        A dependency of scope "function" still has its say: it may commit until the response.
        """
        uncommitted = [session for session in self._sessions if await _has_writes(session)]
        if not uncommitted:
            return
        committed: list[Session] = []
        for session in uncommitted:
            event.listen(session, "after_commit", committed.append)

        async def check_again() -> None:
            if any(session not in committed for session in uncommitted):
                raise UncommittedWritesError(_MESSAGE)

        # What is pushed first is left last: after the teardown of every dependency of the view.
        stack: AsyncExitStack = self._scope["fastapi_function_astack"]
        earlier = stack.pop_all()
        stack.push_async_callback(check_again)
        stack.push_async_exit(earlier)


@event.listens_for(Session, "after_begin")
def _note(session: Session, _transaction: object, _connection: object) -> None:
    begun = _begun.get()
    if begun is not None and session not in begun:
        begun.append(session)


async def _has_writes(session: Session) -> bool:
    if not session.is_active or not session.in_transaction():
        return False
    if session.new or session.dirty or session.deleted:
        return True
    asynchronous = async_session(session)
    if asynchronous is None:
        return False
    # PostgreSQL gives a transaction its id at the first write.
    xid = await asynchronous.scalar(text("SELECT pg_current_xact_id_if_assigned()::text"))
    return xid is not None


_begun: ContextVar[list[Session] | None] = ContextVar("stillroom.begun", default=None)

_MESSAGE = (
    "The view has written through a session that an override of get_db brought, and nobody has "
    "committed it, so the rows would be lost while the client is told that all went well. Remove "
    "the override from app.dependency_overrides: the route commits the session of the real "
    "get_db. To use another database in a test, give its URL to sessionmanager.init()."
)
