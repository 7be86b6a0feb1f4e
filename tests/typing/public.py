"""What a type checker knows of the public names; checked by mypy and pyright, never run."""

from typing import assert_type

from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import stillroom
from stillroom.model import Model
from stillroom.pages import Page, Pages
from stillroom.session import ServiceSession


class Base(Model, DeclarativeBase):
    """A base."""


class Jar(Base):
    """A model."""

    __tablename__ = "jars"
    id: Mapped[int] = mapped_column(primary_key=True)


async def queries(session: AsyncSession) -> None:
    """Ask a model: it gives rows of itself."""
    assert_type(await Jar.create(session, id=1), Jar)
    assert_type(await Jar.get(session, "1"), Jar | None)
    assert_type([jar.id for jar in await Jar.get_all(session)], list[int])
    assert_type(await Jar.create_many(session, [{"id": 1}]), int)
    assert_type(await Jar.create_many(session, ({"id": number} for number in range(9))), int)
    assert_type(await Jar.upsert(session, {"id": 1}, on="id"), Jar)
    assert_type(await Jar.upsert_many(session, [{"id": 1}], on=["id"]), int)
    async for part in Jar.get_all_in_parts(session, 10):
        assert_type([jar.id for jar in part], list[int])


async def pages(session: AsyncSession) -> None:
    """Read pages: of one entity they have entities, of several columns rows."""
    assert_type(await Pages(select(Jar), order_by=[]).rows(session, 10), Page[Jar])
    columns = Pages(select(Jar.id, Jar), order_by=[Jar.id.desc()])
    assert_type(await columns.rows(session, 10, "cursor", name="value"), Page[Row[int, Jar]])


async def sessions(manager: stillroom.DatabaseSessionManager) -> None:
    """Open what the manager has: SQLAlchemy's own classes, and a session that is one."""
    async with manager.session(read_only=True) as session:
        assert_type(session, ServiceSession)
    async with manager.begin() as session:
        assert_type(session, ServiceSession)
    async with manager.connect() as connection:
        assert_type(connection, AsyncConnection)
    assert_type(manager.engine, AsyncEngine)


manager = stillroom.DatabaseSessionManager(Base.metadata)
get_db = stillroom.SessionDependency(manager)
router = APIRouter(route_class=stillroom.UnitOfWorkRoute)


@router.get("/")
@stillroom.unit_of_work(read_only=False)
async def view(db: AsyncSession = Depends(get_db)) -> int:
    """Keep its type below the decorator."""
    return 1


async def decorated(db: AsyncSession) -> None:
    """Call a view: it stays a function."""
    assert_type(await view(db), int)


stillroom.install(FastAPI(lifespan=stillroom.lifespan(manager, lambda: "")), manager)
