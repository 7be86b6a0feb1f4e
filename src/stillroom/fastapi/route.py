"""The unit of work of a request: one session, committed before the response or not at all."""

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from stillroom.engine.admission import client
from stillroom.errors import ConfigurationError
from stillroom.fastapi.client import RequestClient
from stillroom.fastapi.deadline import Deadline
from stillroom.fastapi.idempotency import Handle, answer_once, keyed_request
from stillroom.fastapi.injection import current, injected
from stillroom.fastapi.insert import InsertResponse
from stillroom.fastapi.override import OverrideWatch
from stillroom.fastapi.retry import retry
from stillroom.fastapi.unit import UnitOfWork, options_of, unit_of
from stillroom.manager import DatabaseSessionManager


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
        unit = unit_of(connection.scope)
        if unit is None:
            raise refuse_without_unit_of_work(f"{connection.scope['type']} {connection.url.path}")
        return unit.session(self.manager)


class UnitOfWorkRoute(APIRoute):
    """Run a view as one unit of work: ``APIRouter(route_class=UnitOfWorkRoute)``.

    When the finished response is below 400 the session is committed, and only then is the response
    sent; everything else rolls back. A commit that fails is an error response. Where another
    transaction or a lost connection has ended the work of a GET, HEAD, PUT or DELETE, or of a
    request with an Idempotency-Key, it is done again (`retry`). After 10 seconds it is ended, with
    504 (`Deadline`). `unit_of_work` says otherwise of a view. For routes on the application itself:
    ``app.router.route_class = UnitOfWorkRoute``.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        methods = options.get("methods") or {"GET"}
        if any(map(options_of(endpoint).takes_key, methods)):
            endpoint = answer_once(endpoint)
        super().__init__(path, endpoint, **options)

    def takes_key(self, method: str) -> bool:
        """Say whether an Idempotency-Key matters to a request of this method."""
        return options_of(self.endpoint).takes_key(method)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler inside a unit of work."""
        handlers = _Handlers(super().get_route_handler())
        with injected(self, SessionDependency) as is_lean:
            if is_lean:
                handlers.lean = super().get_route_handler()
        options = options_of(self.endpoint)

        async def handle_in_unit_of_work(request: Request) -> Response:
            with Deadline(options.seconds) as deadline:
                unit = UnitOfWork(options, request, deadline)
                client.set(RequestClient(request))
                current.set(unit)
                if options.takes_key(request.method):
                    unit.keyed = await keyed_request(request, is_required=options.requires_key)

                async def attempt() -> Response:
                    unit.begin()
                    return await _run(handlers, request, unit)

                if options.is_retried(request.method) or unit.keyed is not None:
                    return await retry(attempt, request, deadline, unit.has_committed)
                return await attempt()

        return handle_in_unit_of_work


class _Handlers:
    """The handlers of a route: FastAPI's own, and one that resolves no session."""

    def __init__(self, whole: Handle) -> None:
        self.whole = self.lean = whole


async def _run(handlers: _Handlers, request: Request, unit: UnitOfWork) -> Response:
    with OverrideWatch(request.scope, SessionDependency) as overrides:
        handle = handlers.whole if overrides.are_there else handlers.lean
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


async def _respond(
    handle: Handle,
    request: Request,
    unit: UnitOfWork,
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


async def _commit(unit: UnitOfWork, overrides: OverrideWatch, response: Response) -> None:
    overrides.check()
    if unit.keyed is not None and unit.keyed.is_replayed:
        return
    if isinstance(response, InsertResponse) and response.commits:
        await response.run(commits=unit.keyed is None)
    if unit.keyed is not None:
        await unit.keyed.keep(response)
    await unit.commit()


def refuse_without_unit_of_work(route: str) -> ConfigurationError:
    """Return the error for a route that asks for a session and has no unit of work."""
    return ConfigurationError(
        f"{route} asks for a database session, but its route has no unit of work, so "
        "nobody would commit. Make its router with APIRouter(route_class=UnitOfWorkRoute), or set "
        "app.router.route_class = UnitOfWorkRoute before routes are put on the application."
    )
