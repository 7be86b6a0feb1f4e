"""The lifespan, and what the application refuses."""

import httpx2
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.testclient import TestClient

from stillroom.errors import ConfigurationError, LifecycleError
from stillroom.fastapi import (
    SessionDependency,
    UnitOfWorkRoute,
    install,
    lifespan,
)
from tests.fastapi.conftest import Jar, get_db, manager


def test_a_route_without_a_unit_of_work_is_refused_at_start() -> None:
    """Nobody would commit there: the application does not start, and the message says why."""
    app = FastAPI(lifespan=lifespan(manager, lambda: "postgresql://user@127.0.0.1:1/nowhere"))
    router = APIRouter()

    async def needs_db(db: AsyncSession = Depends(get_db)) -> AsyncSession:
        return db

    @router.put("/jars/{id}", dependencies=[Depends(needs_db)])
    async def put(id: int) -> int:
        return id

    app.include_router(router, prefix="/api")

    with (
        pytest.raises(ConfigurationError, match=r"PUT /api/jars/\{id\} asks for a database"),
        TestClient(app),
    ):
        pass
    assert not manager.is_open


def test_the_lifespan_opens_and_closes_the_manager() -> None:
    """An application whose database is away starts, and answers 503 until it comes."""
    app = FastAPI(lifespan=lifespan(manager, lambda: "postgresql://user@127.0.0.1:1/nowhere"))
    install(app, manager)
    app.router.route_class = UnitOfWorkRoute

    @app.get("/jars")
    async def show(db: AsyncSession = Depends(get_db)) -> list[str]:
        return [jar.name for jar in await Jar.get_all(db)]

    with TestClient(app) as client:
        assert manager.is_open
        response = client.get("/jars")
        assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert not manager.is_open


async def test_the_lifespan_refuses_a_manager_that_is_open(app: FastAPI) -> None:
    """A second init is an error there too, and the first one's connections stay."""
    with (
        pytest.raises(LifecycleError, match="open already"),
        TestClient(FastAPI(lifespan=lifespan(manager, lambda: "postgresql://user@host/name"))),
    ):
        pass
    assert manager.is_open


async def test_what_is_used_of_fastapi_is_there(app: FastAPI, client: httpx2.AsyncClient) -> None:
    """Contract: the inner names that the route class stands on are as in FastAPI 0.163 to 0.165."""
    from contextlib import AsyncExitStack

    from fastapi.routing import APIRoute, iter_route_contexts

    assert callable(APIRoute.get_route_handler)
    stacks: list[object] = []

    @app.get("/scope")
    async def scope(request: Request) -> None:
        stacks.append(request.scope["fastapi_function_astack"])
        assert request.scope["app"] is app

    await client.get("/scope")
    assert isinstance(stacks[0], AsyncExitStack)
    context = next(c for c in iter_route_contexts(app.routes) if c.path == "/jars")
    assert any(
        isinstance(dependency.call, SessionDependency)
        for dependency in context.dependant.dependencies
    )
