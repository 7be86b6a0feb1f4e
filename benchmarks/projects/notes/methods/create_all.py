"""All tables dropped and created before each test, without looking which of them exist."""

from collections.abc import AsyncGenerator

import pytest_asyncio
from models import Base, Session, engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from methods.none import tables

__all__ = ["sessions", "tables"]


@pytest_asyncio.fixture
async def sessions(tables: None) -> AsyncGenerator[async_sessionmaker[AsyncSession]]:  # noqa: ARG001
    """Give the application's sessions, on new tables."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all, checkfirst=False)
        await connection.run_sync(Base.metadata.create_all, checkfirst=False)
    yield Session
