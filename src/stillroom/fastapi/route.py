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

from stillroom.errors import ConfigurationError, StillroomError
from stillroom.fastapi.idempotency import KeyedRequest, answer_once, keyed_request
from stillroom.fastapi.insert import InsertResponse
from stillroom.fastapi.override import OverrideWatch
from stillroom.manager import DatabaseSessionManager
from stillroom.problems import sqlstate_of
from stillroom.session import ServiceSession, has_writes

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


@dataclass(frozen=True)
class UnitOfWorkOptions:
    """Hold what `unit_of_work` says of a view."""

    read_only: bool | None = None
    requires_key: bool = False


class UnitOfWorkRoute(APIRoute):
    """Run a view as one unit of work: ``APIRouter(route_class=UnitOfWorkRoute)``.

    When the finished response is below 400 the session is committed, and only then is the response
    sent; everything else rolls back. A commit that fails is an error response. For routes on
    the application itself: ``app.router.route_class = UnitOfWorkRoute``.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, answer_once(endpoint), **options)

    def takes_key(self, method: str) -> bool:
        """Say whether an Idempotency-Key matters to a request of this method."""
        return method not in _SAFE and not self.options.read_only

    @property
    def options(self) -> "UnitOfWorkOptions":
        """Return what `unit_of_work` says of the view."""
        options: UnitOfWorkOptions = getattr(self.endpoint, _OPTIONS, UnitOfWorkOptions())
        return options

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler inside a unit of work."""
        handle = super().get_route_handler()
        options = self.options

        async def handle_in_unit_of_work(request: Request) -> Response:
            read_only = request.method in _SAFE
            unit = UnitOfWork(read_only if options.read_only is None else options.read_only)
            request.scope[_UNIT_OF_WORK] = unit
            if self.takes_key(request.method):
                unit.keyed = await keyed_request(request, is_required=options.requires_key)
            with OverrideWatch(request.scope, SessionDependency) as overrides:
                try:
                    response = await _respond(handle, request, unit, overrides)
                    if response.status_code < 400:
                        await _commit(unit, overrides, response)
                except HTTPException as answer:
                    if answer.status_code < 400:
                        await overrides.look()
                        redirect = Response(None, answer.status_code, answer.headers)
                        await _commit(unit, overrides, redirect)
                    raise
                except Exception as error:
                    await unit.note(error)
                    raise
                finally:
                    await unit.close()
            return response

        return handle_in_unit_of_work


async def _respond(
    handle: Callable[[Request], Coroutine[Any, Any, Response]],
    request: Request,
    unit: "UnitOfWork",
    overrides: OverrideWatch,
) -> Response:
    # The teardown of dependencies of scope "function" belongs to the work: what they write after
    # their `yield` is committed with it, and what they raise rolls it back.
    responses: list[Response] = []
    async with AsyncExitStack() as teardown:
        request.scope["fastapi_function_astack"] = teardown
        if unit.keyed is None:
            response = await handle(request)
        else:
            response = await unit.keyed.respond(handle, unit.session)
        responses.append(response)
        if isinstance(response, InsertResponse) and not response.commits:
            await response.run()
        await overrides.look()
    if not responses:
        msg = "A dependency with `yield` has passed over an exception; let it raise it again."
        raise ConfigurationError(msg)
    return responses[0]


async def _commit(unit: "UnitOfWork", overrides: OverrideWatch, response: Response) -> None:
    overrides.check()
    if unit.keyed is not None and unit.keyed.is_replayed:
        return
    if isinstance(response, InsertResponse) and response.commits:
        await response.run(commits=unit.keyed is None)
    if unit.keyed is not None:
        await unit.keyed.keep(response)
    await unit.commit()


def unit_of_work(
    *, read_only: bool | None = None, requires_key: bool = False
) -> Callable[[_Endpoint], _Endpoint]:
    """Say of a view what its unit of work is like; it stands below the decorator of the route.

    `read_only` says that its session is, or is not, a read session, whatever the HTTP method. With
    `requires_key` a request of an unsafe method without an Idempotency-Key is a 400.
    """
    if read_only and requires_key:
        msg = "A view that only reads can keep no answer: leave out requires_key, or read_only."
        raise ConfigurationError(msg)

    def mark(endpoint: _Endpoint) -> _Endpoint:
        setattr(endpoint, _OPTIONS, UnitOfWorkOptions(read_only, requires_key))
        return endpoint

    return mark


class UnitOfWork:
    """Hold the one session of a request, and say how it ends."""

    def __init__(self, read_only: bool) -> None:
        self.read_only = read_only
        self.keyed: KeyedRequest | None = None
        self._manager: DatabaseSessionManager | None = None
        self.has_lost_writes = False
        self._session: ServiceSession | None = None
        self._is_demoted = False

    def session(self, manager: DatabaseSessionManager) -> AsyncSession:
        """Return the session, made at the first call.

        Raises ConfigurationError for a second manager: two transactions cannot be one.
        """
        if self._session is None:
            self._session = manager.new_session(read_only=self.read_only)
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


# https://www.rfc-editor.org/rfc/rfc9110#section-9.2.1
_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

_OPTIONS = "__stillroom_unit_of_work__"
_UNIT_OF_WORK = "stillroom.unit_of_work"
