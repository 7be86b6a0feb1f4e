"""An application with routes of every shape, for the laws: ``python -m tests.laws.app URL FD``."""

import asyncio
import logging
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import uvicorn
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, field_validator
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.engine import EngineSettings
from stillroom.fastapi import (
    Idempotency,
    InsertResponse,
    JSONArrayResponse,
    SessionDependency,
    UnitOfWorkRoute,
    install,
    lifespan,
    unit_of_work,
)
from stillroom.json import JSONInsert
from stillroom.manager import DatabaseSessionManager
from stillroom.redaction import redact_process
from tests.laws.models import KEYS, Base, Item, Slot, SlowCommit
from tests.laws.tales import Tales


class ItemSchema(BaseModel):
    """Show an item."""

    model_config = {"from_attributes": True}

    id: int
    name: str


STATEMENT_TIMEOUT = 2.0
"""The deadline of a statement, and of a COMMIT, in seconds."""

SETTINGS = EngineSettings(pool_size=5, pool_timeout=1.0, statement_timeout=STATEMENT_TIMEOUT)

sessionmanager = DatabaseSessionManager(Base.metadata)
get_db = SessionDependency(sessionmanager)
seen: dict[str, str] = {}
"""What background tasks and streams met, for a test to ask for."""

router = APIRouter(route_class=UnitOfWorkRoute)


@router.post("/returned-model", response_model=ItemSchema)
async def returned_model(name: str, db: AsyncSession = Depends(get_db)) -> Item:
    """Return the row itself."""
    return await Item.create(db, name=name)


NEW_ITEM = JSONInsert(Item, ItemSchema)
NEW_SLOT = JSONInsert(Slot, ItemSchema)


@router.post("/inserted", response_model=ItemSchema)
async def inserted(name: str, db: AsyncSession = Depends(get_db)) -> InsertResponse:
    """Return the row that is inserted when the work commits."""
    return InsertResponse(NEW_ITEM, db, {"name": name})


@router.post("/deferred-inserted", response_model=ItemSchema)
async def deferred_inserted(name: str, db: AsyncSession = Depends(get_db)) -> InsertResponse:
    """Do so with a row that a constraint may refuse at COMMIT."""
    return InsertResponse(NEW_SLOT, db, {"name": name})


@router.post("/returned-response")
async def returned_response(
    name: str, status: int = 200, db: AsyncSession = Depends(get_db)
) -> Response:
    """Return a finished response of any status."""
    await Item.create(db, name=name)
    return JSONResponse({"name": name}, status)


@router.post("/redirect")
async def redirect(name: str, db: AsyncSession = Depends(get_db)) -> Response:
    """Send the client elsewhere."""
    await Item.create(db, name=name)
    return RedirectResponse(f"/items?name={name}", 303)


@router.post("/status-code", status_code=422)
async def status_code(name: str, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Answer with the status that the route declares."""
    await Item.create(db, name=name)
    return {"name": name}


@router.post("/raised")
async def raised(name: str, status: int, db: AsyncSession = Depends(get_db)) -> None:
    """Raise FastAPI's exception."""
    await Item.create(db, name=name)
    raise HTTPException(status, "no")


@router.post("/exception")
async def exception(name: str, db: AsyncSession = Depends(get_db)) -> None:
    """Raise an exception that nobody expects."""
    await Item.create(db, name=name)
    msg = "a mistake in the program"
    raise RuntimeError(msg)


@router.post("/bad-model", response_model=ItemSchema)
async def bad_model(name: str, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Return what the response model refuses."""
    await Item.create(db, name=name)
    return {"id": "no number"}


@router.post("/deferred")
async def deferred(name: str, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Write what a constraint may refuse at COMMIT."""
    await Slot.create(db, name=name)
    return {"name": name}


@router.post("/unflushed")
async def unflushed(name: str, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Leave the INSERT to the commit."""
    db.add(Item(name=name))
    return {"name": name}


@router.post("/slow-commit")
async def slow_commit(
    name: str, seconds: float, db: AsyncSession = Depends(get_db)
) -> dict[str, str]:
    """Write what makes the COMMIT take its time."""
    await SlowCommit.create(db, name=name, seconds=seconds)
    return {"name": name}


@router.post("/error-passed-over")
async def error_passed_over(name: str, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Go on after the error of a statement, in a transaction that PostgreSQL has aborted."""
    await Item.create(db, name=name)
    try:
        await db.execute(text("SELECT 1 / 0"))
    except DBAPIError:
        return {"name": name}
    raise AssertionError


@router.post("/error-in-savepoint")
async def error_in_savepoint(name: str, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Go on after the error of a statement in a savepoint, as one may."""
    await Item.create(db, name=name)
    try:
        async with db.begin_nested():
            await db.execute(text("SELECT 1 / 0"))
    except DBAPIError:
        return {"name": name}
    raise AssertionError


@router.post("/own-commit")
async def own_commit(name: str, status: int, db: AsyncSession = Depends(get_db)) -> Response:
    """Commit by itself, then answer anything; what is written later is the route's again."""
    await Item.create(db, name=name)
    await db.commit()
    await Item.create(db, name=f"{name}-later")
    return JSONResponse({"name": name}, status)


@router.post("/background")
async def background(
    name: str, tasks: BackgroundTasks, db: AsyncSession = Depends(get_db)
) -> dict[str, str]:
    """Use the session of the request, wrongly, in a background task."""

    async def write_late() -> None:
        try:
            await Item.create(db, name=f"{name}-late")
        except Exception as error:
            seen[name] = type(error).__name__
            raise

    await Item.create(db, name=name)
    tasks.add_task(write_late)
    return {"name": name}


@router.post("/stream")
async def stream(name: str, db: AsyncSession = Depends(get_db)) -> StreamingResponse:
    """Use the session of the request, wrongly, in a stream."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"first "
        await Item.create(db, name=f"{name}-late")
        yield b"last"

    await Item.create(db, name=name)
    return StreamingResponse(parts())


@router.post("/generator")
async def generator(name: str, db: AsyncSession = Depends(get_db)) -> AsyncIterator[ItemSchema]:
    """Use the session of the request, wrongly, in a generator of JSON Lines."""
    yield ItemSchema(id=1, name="first")
    await Item.create(db, name=f"{name}-late")


@router.post("/statement")
async def run_statement(request: Request, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Run the SQL in the body."""
    await db.execute(text((await request.body()).decode()))
    return {}


@router.post("/insert")
async def insert_values(
    values: dict[str, Any], db: AsyncSession = Depends(get_db)
) -> dict[str, str]:
    """Insert an item with any values."""
    await db.execute(insert(Item).values(**values))
    return {}


class Picky(BaseModel):
    """Refuse, and quote what was refused."""

    model_config = {"extra": "forbid"}

    word: str = "good"
    numbers: dict[str, int] = {}

    @field_validator("word")
    @classmethod
    def quote(cls, word: str) -> str:
        """Refuse every word but one."""
        if word != "good":
            msg = f"{word!r} is no good"
            raise ValueError(msg)
        return word


@router.post("/picky")
async def picky(picky: Picky, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Take what is good."""
    await db.execute(text("SELECT 1"))
    return {"word": picky.word}


@router.post("/tell/{way}")
async def tell(way: str, secret: str, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Bring a secret into the logs, by each way that is known."""
    await getattr(Tales(sessionmanager, db, secret), way)()
    return {}


@router.get("/tell-later")
async def tell_later(secret: str, db: AsyncSession = Depends(get_db)) -> StreamingResponse:
    """Fail with a secret when the answer has begun."""

    async def parts() -> AsyncIterator[bytes]:
        yield b"first"
        await tales.refused()

    tales = Tales(sessionmanager, db, secret)

    return StreamingResponse(parts())


@router.post("/tell-afterwards")
async def tell_afterwards(
    secret: str, tasks: BackgroundTasks, db: AsyncSession = Depends(get_db)
) -> dict[str, str]:
    """Fail with a secret in a background task."""
    tasks.add_task(Tales(sessionmanager, db, secret).refused)
    return {}


@router.post("/tell-model", response_model=ItemSchema)
async def tell_model(secret: str) -> dict[str, str]:
    """Return a secret that the response model refuses."""
    return {"id": secret}


@router.get("/write/{form}")
async def write(form: str, name: str, db: AsyncSession = Depends(get_db)) -> Response:
    """Write in a GET, in every form."""
    if form == "stream":

        async def read(session: AsyncSession, _size: int) -> AsyncGenerator[list[Item]]:
            yield [await Item.create(session, name=name)]

        return JSONArrayResponse(sessionmanager, read, ItemSchema)
    if form == "orm":
        await Item.create(db, name=name)
    elif form == "core":
        await db.execute(insert(Item).values(name=name))
    elif form == "second-transaction":
        await db.execute(text("SELECT 1"))
        await db.commit()
        await db.execute(insert(Item).values(name=name))
        await db.commit()
    elif form == "function":
        await db.execute(text("SELECT setval('items_id_seq', 1000)"))
    return JSONResponse({"name": name})


@router.get("/writes-by-choice")
@unit_of_work(read_only=False)
async def writes_by_choice(name: str, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Write in a GET that says so."""
    await Item.create(db, name=name)
    return {"name": name}


@router.post("/reads-by-choice")
@unit_of_work(read_only=True)
async def reads_by_choice(name: str, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Write in a POST that said it would only read."""
    await Item.create(db, name=name)
    return {"name": name}


@router.get("/sleep")
async def sleep(seconds: float, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
    """Let PostgreSQL sleep."""
    await db.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
    return {}


@router.post("/insert-and-sleep")
async def insert_and_sleep(
    name: str, seconds: float, db: AsyncSession = Depends(get_db)
) -> dict[str, str]:
    """Write, then let PostgreSQL sleep."""
    await Item.create(db, name=name)
    await db.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})
    return {"name": name}


@router.get("/endless")
async def endless() -> JSONArrayResponse:
    """Stream rows that never end, one after another."""

    async def read(session: AsyncSession, size: int) -> AsyncGenerator[list[dict[str, Any]]]:
        rows = await session.stream(
            text("SELECT generate_series(1, 1000000000) AS id, repeat('x', 40) AS name"),
            execution_options={"yield_per": size},
        )
        async for part in rows.mappings().partitions(size):
            yield [dict(row) for row in part]

    return JSONArrayResponse(sessionmanager, read, ItemSchema)


@router.get("/items", response_model=list[ItemSchema])
async def items(name: str, db: AsyncSession = Depends(get_db)) -> list[Item]:
    """Show the items whose name begins so."""
    return [item for item in await Item.get_all(db) if item.name.startswith(name)]


@router.get("/pool")
async def pool() -> dict[str, int]:
    """Say how many connections are in use; it takes none."""
    pools: list[Any] = [sessionmanager.engine.pool, sessionmanager.read_engine.pool]
    return {"in_use": sum(pool.checkedout() for pool in pools), "size": pools[0].size()}


@router.get("/seen")
async def show_seen(name: str) -> dict[str, str | None]:
    """Say what a background task met."""
    return {"error": seen.get(name)}


def make_app(url: str) -> FastAPI:
    """Make the application; its routes stand at the root, below two routers, and on itself."""
    app = FastAPI(lifespan=lifespan(sessionmanager, lambda: url, settings=SETTINGS))
    install(app, sessionmanager, idempotency=Idempotency(KEYS))
    app.include_router(router)
    outer = APIRouter(prefix="/nested", dependencies=[Depends(get_db)])
    outer.include_router(router, prefix="/deep")
    app.include_router(outer)
    app.router.route_class = UnitOfWorkRoute

    @app.post("/on-app")
    async def on_app(name: str, db: AsyncSession = Depends(get_db)) -> dict[str, str]:
        await Item.create(db, name=name)
        return {"name": name}

    @app.post("/function-scope")
    async def function_scope(
        name: str, db: AsyncSession = Depends(get_db, scope="function")
    ) -> dict[str, str]:
        await Item.create(db, name=name)
        return {"name": name}

    return app


def main() -> None:
    """Serve on the inherited socket."""
    url, listening = sys.argv[1], socket.socket(fileno=int(sys.argv[2]))
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    redact_process()
    config = uvicorn.Config(make_app(url), log_level="info")
    asyncio.run(uvicorn.Server(config).serve(sockets=[listening]))


if __name__ == "__main__":
    main()
