"""The unit of work of a request: one session, committed before the response or not at all."""

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import Scope

from stillroom.engine.admission import client
from stillroom.errors import ConfigurationError, StillroomError
from stillroom.fastapi.client import RequestClient
from stillroom.fastapi.deadline import DEADLINE, Deadline
from stillroom.fastapi.insert import InsertResponse
from stillroom.fastapi.override import OverrideWatch
from stillroom.fastapi.retry import RETRIED, retry
from stillroom.manager import DatabaseSessionManager
from stillroom.problems import sqlstate_of
from stillroom.session import DEADLINE as SESSION_DEADLINE
from stillroom.session import LONGER, ServiceSession, has_writes

_Endpoint = TypeVar("_Endpoint", bound=Callable[..., Any])


class SessionDependency:
    """Hand out the session of the request's unit of work: ``get_db = SessionDependency(manager)``.

    A view takes it with plain ``Depends(get_db)``; every dependency of the request gets the same
    session. It is a read session in the safe methods (GET, HEAD, OPTIONS, TRACE), a write session
    elsewhere, unless the view says otherwise with `unit_of_work`. It takes a connection at its
    first statement, so a request that is refused before costs none.
    """

    def __init__(self, manager: DatabaseSessionManager) -> None:
        self.manager = manager

    async def __call__(self, connection: HTTPConnection) -> AsyncSession:
        """Return the session; raises ConfigurationError where no unit of work has been opened."""
        unit: UnitOfWork | None = connection.scope.get(_UNIT_OF_WORK)
        if unit is None:
            raise refuse_without_unit_of_work(f"{connection.scope['type']} {connection.url.path}")
        return unit.session(self.manager)


class UnitOfWorkRoute(APIRoute):
    """Run a view as one unit of work: ``APIRouter(route_class=UnitOfWorkRoute)``.

    When the finished response is below 400 the session is committed, and only then is the response
    sent; everything else rolls back. A commit that fails is an error response. Where another
    transaction or a lost connection has ended the work of a GET, HEAD, PUT or DELETE, it is done
    again (`retry`). After 10 seconds it is ended, with 504 (`Deadline`). `unit_of_work` says
    otherwise of a view. For routes on the application itself: ``app.router.route_class =
    UnitOfWorkRoute``.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler inside a unit of work."""
        handle = super().get_route_handler()
        options: Options = getattr(self.endpoint, _OPTIONS, Options())

        async def handle_in_unit_of_work(request: Request) -> Response:
            with Deadline(options.deadline or DEADLINE) as deadline:
                unit = UnitOfWork(options, request.method, deadline)
                request.scope[_UNIT_OF_WORK] = unit
                client.set(RequestClient(request))
                if not options.is_retried(request.method):
                    return await _run(handle, request, unit)

                def attempt() -> Coroutine[Any, Any, Response]:
                    unit.begin()
                    return _run(handle, request, unit)

                return await retry(attempt, request, deadline, unit.has_committed)

        return handle_in_unit_of_work


async def _run(
    handle: Callable[[Request], Coroutine[Any, Any, Response]], request: Request, unit: "UnitOfWork"
) -> Response:
    with OverrideWatch(request.scope, SessionDependency) as overrides:
        try:
            response = await _respond(handle, request, overrides)
            if response.status_code < 400:
                await _commit(unit, overrides, response)
        except HTTPException as answer:
            if answer.status_code < 400:
                await overrides.look()
                await _commit(unit, overrides)
            raise
        except Exception as error:
            await unit.note(error)
            raise
        finally:
            await unit.close()
    return response


async def _respond(
    handle: Callable[[Request], Coroutine[Any, Any, Response]],
    request: Request,
    overrides: OverrideWatch,
) -> Response:
    # The teardown of dependencies of scope "function" belongs to the work: what they write after
    # their `yield` is committed with it, and what they raise rolls it back.
    responses: list[Response] = []
    async with AsyncExitStack() as teardown:
        request.scope["fastapi_function_astack"] = teardown
        responses.append(response := await handle(request))
        if isinstance(response, InsertResponse) and not response.commits:
            await response.run()
        await overrides.look()
    if not responses:
        msg = "A dependency with `yield` has passed over an exception; let it raise it again."
        raise ConfigurationError(msg)
    return responses[0]


async def _commit(
    unit: "UnitOfWork", overrides: OverrideWatch, response: Response | None = None
) -> None:
    overrides.check()
    if isinstance(response, InsertResponse) and response.commits:
        await response.run()
    await unit.commit()


def unit_of_work(
    *,
    read_only: bool | None = None,
    retry: bool | None = None,
    deadline: float | None = None,
) -> Callable[[_Endpoint], _Endpoint]:
    """Say of a view what its HTTP method does not: it stands below the decorator of the route.

    `read_only`: whether its session is a read session, as in the safe methods. `retry`: whether the
    whole view may run again when another transaction or a lost connection has ended its work, as in
    GET, HEAD, PUT and DELETE; what it does outside of the database it does again. `deadline`: after
    how many seconds it is ended, if not 10; a statement may then take as long, whatever
    `EngineSettings.statement_timeout` says.
    """

    def mark(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _OPTIONS, Options(read_only, retry, deadline))
        return endpoint

    return mark


class UnitOfWork:
    """Hold the one session of a request, and say how it ends."""

    def __init__(self, options: "Options", method: str, deadline: Deadline) -> None:
        self.read_only = options.is_read_only(method)
        self.has_lost_writes = False
        self._options = options
        self._deadline = deadline
        self._manager: DatabaseSessionManager | None = None
        self._session: ServiceSession | None = None
        self._is_demoted = False

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
            self._session.info[SESSION_DEADLINE] = self._deadline.at
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


def is_read_only(scope: Scope) -> bool:
    """Say whether the request runs, or ran, in a read session."""
    unit: UnitOfWork | None = scope.get(_UNIT_OF_WORK)
    return unit is not None and unit.read_only


def has_lost_writes(scope: Scope) -> bool:
    """Say whether the request's unit of work was rolled back, after an exception, with writes."""
    unit: UnitOfWork | None = scope.get(_UNIT_OF_WORK)
    return unit is not None and unit.has_lost_writes


def refuse_without_unit_of_work(route: str) -> ConfigurationError:
    """Return the error for a route that asks for a session and has no unit of work."""
    return ConfigurationError(
        f"{route} asks for a database session, but its route has no unit of work, so "
        "nobody would commit. Make its router with APIRouter(route_class=UnitOfWorkRoute), or set "
        "app.router.route_class = UnitOfWorkRoute before routes are put on the application."
    )


@dataclass(frozen=True)
class Options:
    """Hold what a view says of its unit of work."""

    read_only: bool | None = None
    retry: bool | None = None
    deadline: float | None = None

    def longer_than(self, timeout: float) -> float | None:
        """Return the deadline that the view has been given, where it is longer than a timeout."""
        return self.deadline if self.deadline and 0 < timeout < self.deadline else None

    def is_read_only(self, method: str) -> bool:
        """Say whether the session of a request is a read session."""
        return method in _SAFE if self.read_only is None else self.read_only

    def is_retried(self, method: str) -> bool:
        """Say whether the work of a request may be done again."""
        return method in RETRIED if self.retry is None else self.retry


# https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

_OPTIONS = "__stillroom_unit_of_work__"
_UNIT_OF_WORK = "stillroom.unit_of_work"
