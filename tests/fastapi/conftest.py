"""An application with one table, for the tests of this folder."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import String
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom.fastapi import (
    SessionDependency,
    UnitOfWorkRoute,
    install,
)
from stillroom.manager import DatabaseSessionManager
from stillroom.model import Model


class Base(Model, DeclarativeBase):
    """The base of these tables."""


class Jar(Base):
    """A row with a name."""

    __tablename__ = "jars"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(20))


class JarSchema(BaseModel):
    """Show a jar."""

    model_config = {"from_attributes": True}

    id: int
    name: str


manager = DatabaseSessionManager(Base.metadata)
get_db = SessionDependency(manager)


@pytest.fixture
async def app(database_url: str) -> AsyncIterator[FastAPI]:
    """Give an application with one route that writes, its manager open and its tables made."""
    async with open_app(database_url) as app:
        yield app


@pytest.fixture
async def app_on_a_driver(driver_url: str) -> AsyncIterator[FastAPI]:
    """Give the same on each driver."""
    async with open_app(driver_url) as app:
        yield app


@asynccontextmanager
async def open_app(url: str) -> AsyncGenerator[FastAPI]:
    """Make the application on a database, and close it."""
    app = FastAPI()
    install(app, manager)
    app.router.route_class = UnitOfWorkRoute

    @app.post("/jars", response_model=JarSchema)
    async def create(name: str, db: AsyncSession = Depends(get_db)) -> Jar:
        return await Jar.create(db, name=name)

    @app.post("/jars-in-function-scope", response_model=JarSchema)
    async def create_in_function_scope(
        name: str, db: AsyncSession = Depends(get_db, scope="function")
    ) -> Jar:
        return await Jar.create(db, name=name)

    @app.post("/jars-by-commit", response_model=JarSchema)
    async def create_and_commit(name: str, db: AsyncSession = Depends(get_db)) -> Jar:
        jar = await Jar.create(db, name=name)
        await db.commit()
        return jar

    @app.get("/jars")
    async def show(db: AsyncSession = Depends(get_db)) -> list[str]:
        return [jar.name for jar in await Jar.get_all(db)]

    manager.init(url)
    async with manager.connect() as connection:
        await manager.create_all(connection)
    yield app
    await manager.close()


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """Give a client that talks to the application in process."""
    async with open_client(app) as client:
        yield client


@pytest.fixture
async def client_on_a_driver(app_on_a_driver: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """Give a client of the application on each driver."""
    async with open_client(app_on_a_driver) as client:
        yield client


def open_client(app: FastAPI) -> httpx2.AsyncClient:
    """Make a client that talks to an application in process."""
    transport = httpx2.ASGITransport(app)
    return httpx2.AsyncClient(transport=transport, base_url="http://test")


async def names() -> list[str]:
    """Read the names that are committed."""
    async with manager.session() as session:
        return [jar.name for jar in await Jar.get_all(session)]
