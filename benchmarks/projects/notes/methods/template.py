"""pytest-postgresql: a template that is loaded once, and a clone of it for each test.

Its own connection is psycopg's. The application's engine connects once in each test: the clone has
the same name each time, so the engine is kept, and pools nothing.
"""

import asyncio
from importlib import import_module
from typing import Any

import pytest
from models import Base
from sqlalchemy import URL, NullPool
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine


def load(*, host: str, port: int, user: str, dbname: str, **_: Any) -> None:
    """Create the tables of the template."""
    asyncio.run(_create(_url(host, port, user, dbname)))


# Imported so, because the checks run where this package is not.
_factories: Any = import_module("pytest_postgresql.factories")
postgresql_noproc = _factories.postgresql_noproc(load=[load])
postgresql = _factories.postgresql("postgresql_noproc")


@pytest.fixture(scope="session")
def of_the_clone(postgresql_noproc: Any) -> async_sessionmaker[AsyncSession]:
    """Make the sessions of all tests."""
    server = postgresql_noproc
    url = _url(server.host, server.port, server.user, server.dbname)
    engine = create_async_engine(url, poolclass=NullPool)
    return async_sessionmaker(engine, expire_on_commit=False)


@pytest.fixture
def sessions(
    of_the_clone: async_sessionmaker[AsyncSession],
    postgresql: Any,  # noqa: ARG001
) -> async_sessionmaker[AsyncSession]:
    """Give sessions on the test's clone."""
    return of_the_clone


def _url(host: str, port: int, user: str, name: str) -> URL:
    query = {"host": host, "port": str(port)}
    return URL.create("postgresql+asyncpg", user, database=name, query=query)


async def _create(url: URL) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
