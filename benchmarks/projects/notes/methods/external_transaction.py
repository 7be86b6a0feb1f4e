"""SQLAlchemy's recipe: sessions that join a transaction of the test's, and commit to a savepoint.

https://docs.sqlalchemy.org/en/21/orm/session_transaction.html, "Joining a Session into an External
Transaction (such as for test suites)", for asyncio.
"""

from collections.abc import AsyncGenerator

import pytest_asyncio
from models import engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from methods.none import tables

__all__ = ["sessions", "tables"]


@pytest_asyncio.fixture
async def sessions(tables: None) -> AsyncGenerator[async_sessionmaker[AsyncSession]]:  # noqa: ARG001
    """Give sessions on the one connection of the test, which is rolled back."""
    async with engine.connect() as connection:
        transaction = await connection.begin()
        yield async_sessionmaker(
            connection, expire_on_commit=False, join_transaction_mode="create_savepoint"
        )
        await transaction.rollback()
