"""No isolation, tables made once, and a pool that is kept: the floor of the others."""

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio
from models import Base, Session, engine
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker


@pytest_asyncio.fixture(scope="session")
async def tables() -> AsyncGenerator[None]:
    """Create the tables of the run."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield
    await engine.dispose()


@pytest.fixture
def sessions(tables: None) -> async_sessionmaker[AsyncSession]:  # noqa: ARG001
    """Give the application's sessions."""
    return Session
