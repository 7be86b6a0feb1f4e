"""All tables truncated before each test, in one statement."""

from collections.abc import AsyncGenerator

import pytest_asyncio
from models import Base, Session, engine
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from methods.none import tables

__all__ = ["sessions", "tables"]

_names = ", ".join(table.name for table in Base.metadata.sorted_tables)
_truncate = text(f"TRUNCATE {_names} RESTART IDENTITY CASCADE")


@pytest_asyncio.fixture
async def sessions(tables: None) -> AsyncGenerator[async_sessionmaker[AsyncSession]]:  # noqa: ARG001
    """Give the application's sessions, on empty tables."""
    async with engine.begin() as connection:
        await connection.execute(_truncate)
    yield Session
