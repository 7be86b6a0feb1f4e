"""The application that the faults are made to: ``stillroom serve tests.faults.app:make_app``."""

import asyncio
import os
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.responses import Response

from stillroom.engine import EngineSettings
from stillroom.fastapi import (
    Idempotency,
    JSONArrayResponse,
    SessionDependency,
    UnitOfWorkRoute,
    health,
    install,
    lifespan,
    unit_of_work,
)
from stillroom.manager import DatabaseSessionManager
from tests.laws.models import KEYS, Base, Item, Slot, SlowCommit

DEADLINE = 2.0
"""Seconds that a request has."""

sessionmanager = DatabaseSessionManager(Base.metadata)
get_db = SessionDependency(sessionmanager)
router = APIRouter(route_class=UnitOfWorkRoute)


@router.post("/item")
@unit_of_work(deadline=DEADLINE)
async def add(name: str, db: AsyncSession = Depends(get_db)) -> dict[str, Any]:
    """Add an element of the set."""
    item = await Item.create(db, name=name)
    return {"id": item.id, "name": name}


@router.get("/item")
@unit_of_work(deadline=DEADLINE)
async def has(name: str, db: AsyncSession = Depends(get_db)) -> dict[str, bool]:
    """Say whether an element is there."""
    return {"is_there": await db.scalar(select(Item.id).where(Item.name == name)) is not None}


@router.post("/slot")
async def add_slot(name: str, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Add what a constraint may refuse at COMMIT."""
    await Slot.create(db, name=name)
    return {"name": name}


@router.get("/sleep")
@unit_of_work(deadline=DEADLINE)
async def sleep(seconds: float, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Let PostgreSQL take its time."""
    await db.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
    return {}


@router.post("/add-and-sleep")
async def add_and_sleep(
    name: str, seconds: float, db: AsyncSession = Depends(get_db)
) -> dict[str, str]:
    """Add an element, then let PostgreSQL take its time."""
    await Item.create(db, name=name)
    await db.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
    return {}


@router.post("/slow-commit")
async def slow_commit(
    name: str, seconds: float, db: AsyncSession = Depends(get_db)
) -> dict[str, str]:
    """Let the COMMIT take its time."""
    await SlowCommit.create(db, name=name, seconds=seconds)
    return {}


@router.get("/limited")
async def limited(seconds: float, db: AsyncSession = Depends(get_db)) -> dict[str, bool]:
    """Cancel a query by asyncio's own means, a little after it has begun."""
    try:
        async with asyncio.timeout(0.02):
            await db.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
    except TimeoutError:
        return {"was_cancelled": True}
    return {"was_cancelled": False}


@router.get("/endless")
async def endless() -> JSONArrayResponse:
    """Stream rows without an end."""

    async def read(session: AsyncSession, size: int) -> AsyncGenerator[list[dict[str, Any]]]:
        rows = await session.stream(
            text("SELECT generate_series(1, 1000000000) AS id, repeat('x', 40) AS name"),
            execution_options={"yield_per": size},
        )
        async for part in rows.mappings().partitions(size):
            yield [dict(row) for row in part]

    return JSONArrayResponse(sessionmanager, read, dict[str, Any])


@router.get("/mistake")
async def mistake(name: str) -> None:
    """Fail as a program does that has a mistake, with what was sent in the message."""
    msg = f"there was a mistake about {name}"
    raise RuntimeError(msg)


@router.get("/in-use")
async def in_use() -> int:
    """Say how many connections are in use; it takes none."""
    pools: list[Any] = [sessionmanager.engine.pool, sessionmanager.read_engine.pool]
    return sum(pool.checkedout() for pool in pools)


def make_app() -> FastAPI:
    """Make the application; DB_CONFIG and POOL_SIZE are in its environment."""
    settings = EngineSettings(pool_size=int(os.environ["POOL_SIZE"]), statement_timeout=DEADLINE)
    url = os.environ["DB_CONFIG"]
    app = FastAPI(lifespan=lifespan(sessionmanager, lambda: url, settings=settings))
    install(app, sessionmanager, idempotency=Idempotency(KEYS))
    app.include_router(router)
    app.include_router(health(sessionmanager))
    wrapped = FastAPI()
    install(wrapped, sessionmanager, redact=False)
    wrapped.include_router(router)
    wrapped.add_middleware(BaseHTTPMiddleware, dispatch=_pass_on)
    app.mount("/wrapped", wrapped)
    return app


async def _pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)
