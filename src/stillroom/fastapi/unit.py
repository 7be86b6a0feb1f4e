"""What belongs to one request: its session, and what its view says of how the work is done."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Scope

from stillroom.errors import ConfigurationError, StillroomError
from stillroom.fastapi.deadline import Deadline
from stillroom.fastapi.idempotency import KeyedRequest
from stillroom.manager import DatabaseSessionManager
from stillroom.problems import sqlstate_of
from stillroom.session import LONGER, ServiceSession, has_writes

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


def unit_of_work(
    *,
    read_only: bool | None = None,
    retry: bool | None = None,
    deadline: float | None = None,
    requires_key: bool = False,
) -> Callable[[_Endpoint], _Endpoint]:
    """Say of a view what its HTTP method does not: it stands below the decorator of the route.

    `read_only`: whether its session is a read session, as in the safe methods. `retry`: whether the
    whole view may run again when another transaction or a lost connection has ended its work, as in
    GET, HEAD, PUT and DELETE; what it does outside of the database it does again. `deadline`: after
    how many seconds it is ended, if not 10; a statement may then take as long, whatever
    `EngineSettings.statement_timeout` says. `requires_key`: a request of an unsafe method without
    an Idempotency-Key is a 400.
    """
    if read_only and requires_key:
        msg = "A view that only reads can keep no answer: leave out requires_key, or read_only."
        raise ConfigurationError(msg)

    def mark(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _OPTIONS, Options(read_only, retry, deadline, requires_key))
        return endpoint

    return mark


@dataclass(frozen=True)
class Options:
    """Hold what `unit_of_work` says of a view."""

    read_only: bool | None = None
    retry: bool | None = None
    deadline: float | None = None
    requires_key: bool = False

    @property
    def seconds(self) -> float:
        """Return how long the work of a request may take."""
        return self.deadline or _DEADLINE

    def longer_than(self, timeout: float) -> float | None:
        """Return the deadline that the view has been given, where it is longer than a timeout."""
        return self.deadline if self.deadline and 0 < timeout < self.deadline else None

    def is_read_only(self, method: str) -> bool:
        """Say whether the session of a request is a read session."""
        return method in _SAFE if self.read_only is None else self.read_only

    def is_retried(self, method: str) -> bool:
        """Say whether the work of a request may be done again, whatever headers it has."""
        return method in _IDEMPOTENT if self.retry is None else self.retry

    def takes_key(self, method: str) -> bool:
        """Say whether an Idempotency-Key matters to a request."""
        return method not in _SAFE and not self.read_only


def options_of(endpoint: Callable[..., Any]) -> Options:
    """Return what `unit_of_work` says of a view."""
    options: Options = getattr(endpoint, _OPTIONS, _NOTHING_SAID)
    return options


class UnitOfWork:
    """Hold the one session of a request, and say how it ends."""

    def __init__(self, options: Options, request: Request, deadline: Deadline) -> None:
        """Take the request, whose unit of work it is from now on."""
        self.read_only = options.is_read_only(request.method)
        self.has_lost_writes = False
        self.keyed: KeyedRequest | None = None
        self._options = options
        self._deadline = deadline
        self._manager: DatabaseSessionManager | None = None
        self._session: ServiceSession | None = None
        self._is_demoted = False
        request.scope[_UNIT_OF_WORK] = self

    def begin(self) -> None:
        """Begin anew: what was done before has left nothing."""
        self._session = self._deadline.session = None
        self._is_demoted = self.has_lost_writes = False

    def has_committed(self) -> bool:
        """Say whether any of the work is committed."""
        return self._session is not None and self._session.has_committed

    def session(self, manager: DatabaseSessionManager) -> AsyncSession:
        """Return the session, made at the first call.

        Raises ConfigurationError for a second manager: two transactions cannot be one.
        """
        if self._session is None:
            self._session = manager.new_session(read_only=self.read_only)
            self._session.deadline = self._deadline.at
            if (
                longer := self._options.longer_than(manager.settings.statement_timeout)
            ) is not None:
                self._session.info[LONGER] = longer
            self._deadline.session = self._session
            self._manager = manager
        elif self._manager is not manager:
            msg = (
                "The request has asked for sessions of two session managers, and one commit cannot "
                "cover both. Open the second one in the view: async with manager.begin()."
            )
            raise ConfigurationError(msg)
        return self._session

    async def commit(self) -> None:
        """Commit what was written; a read session has nothing to commit."""
        if self._session is not None and not self.read_only:
            await self._session.commit()

    async def note(self, error: Exception) -> None:
        """See what an error means: writes that are lost, a server that takes no writes any more.

        An exception handler of the application may still answer below 400.
        """
        if self._session is None or self.read_only:
            return
        self._is_demoted = sqlstate_of(error) == "25006"
        # After an error of the database, or one of ours, a handler knows that nothing is there.
        if not isinstance(error, DBAPIError | StillroomError):
            self.has_lost_writes = await has_writes(self._session)

    async def close(self) -> None:
        """Roll back what is not committed; from now on the session refuses work."""
        if self._session is not None:
            await (self._session.invalidate() if self._is_demoted else self._session.close())


def unit_of(scope: Scope) -> UnitOfWork | None:
    """Return the unit of work of a request, None where its route has none."""
    unit: UnitOfWork | None = scope.get(_UNIT_OF_WORK)
    return unit


def is_read_only(scope: Scope) -> bool:
    """Say whether the request runs, or ran, in a read session."""
    unit = unit_of(scope)
    return unit is not None and unit.read_only


def has_lost_writes(scope: Scope) -> bool:
    """Say whether the request's unit of work was rolled back, after an exception, with writes."""
    unit = unit_of(scope)
    return unit is not None and unit.has_lost_writes


_DEADLINE = 10.0
"""Seconds that a request has where its view says nothing else."""

# https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

# Of which the same request twice is the same as once.
# https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
_IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})

_NOTHING_SAID = Options()
_OPTIONS = "__stillroom_unit_of_work__"
_UNIT_OF_WORK = "stillroom.unit_of_work"
