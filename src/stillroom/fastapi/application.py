"""A FastAPI application with a session manager: its lifespan, its errors, its document."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from stillroom.engine import EngineSettings
from stillroom.fastapi.answers import answer_errors
from stillroom.fastapi.body import BodyLimit
from stillroom.fastapi.document import describe_problems
from stillroom.fastapi.route import (
    SessionDependency,
    UnitOfWorkRoute,
    refuse_without_unit_of_work,
)
from stillroom.manager import DatabaseSessionManager
from stillroom.workers import workers


def install(
    app: FastAPI, manager: DatabaseSessionManager, *, max_body_size: int | None = None
) -> None:
    """Answer errors as problems (RFC 9457) and describe them in the OpenAPI document.

    A body of more than `max_body_size` bytes is refused with 413. FastAPI has a limit of that name
    too, but answers it in plain text.
    """
    if max_body_size is not None:
        app.add_middleware(BodyLimit, max_size=max_body_size)
    answer_errors(app, manager)
    describe_problems(app)


def lifespan(
    manager: DatabaseSessionManager,
    url: Callable[[], str],
    *,
    settings: EngineSettings | None = None,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """Return a lifespan that opens the manager with the application and closes it at the end.

    `url` is called at the start, not at import. An application whose database is away starts,
    answers 503, and recovers by itself. Where STILLROOM_WORKERS says of how many processes this is
    one, as `stillroom serve` does, the database is asked once how many connections it has for them
    (`DatabaseSessionManager.share`), and all of them are made. Raises ConfigurationError for a
    route that asks for a session and has no unit of work, and for pools that do not fit.
    """

    @asynccontextmanager
    async def open_database(app: FastAPI) -> AsyncGenerator[None]:
        _require_units_of_work(app)
        manager.init(url(), settings=settings)
        try:
            if (number := workers()) is not None:
                await manager.share(number)
                manager.warm()
            yield
        finally:
            await manager.close()

    return open_database


def _require_units_of_work(app: FastAPI) -> None:
    for context in iter_route_contexts(app.routes):
        route: Any = context.original_route
        dependant = getattr(context, "dependant", None)
        if dependant is None or isinstance(route, UnitOfWorkRoute):
            continue
        if any(isinstance(call, SessionDependency) for call in _calls(dependant)):
            name = f"{', '.join(sorted(context.methods or {'WebSocket'}))} {context.path}"
            raise refuse_without_unit_of_work(name)


def _calls(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    if dependant.call is not None:
        yield dependant.call
    for dependency in dependant.dependencies:
        yield from _calls(dependency)
