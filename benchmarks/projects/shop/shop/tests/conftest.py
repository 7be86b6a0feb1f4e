"""A database for the tests, with new tables for each, and sessions of it for the application."""

import os
from collections.abc import AsyncGenerator, Generator

import pytest
import pytest_asyncio
from fastapi.testclient import TestClient
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from shop.application import app
from shop.database import get_session
from shop.models import Base

# Each test has an event loop of its own, to which a pool's connections would be bound.
engine = create_async_engine(os.environ["TEST_DATABASE_URL"], poolclass=NullPool)
TestingSession = async_sessionmaker(engine, expire_on_commit=False)


@pytest_asyncio.fixture(autouse=True)
async def tables() -> None:
    """Give each test empty tables."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)


@pytest.fixture(autouse=True)
def override() -> Generator[None]:
    """Let the application use the tests' database."""

    async def get_testing_session() -> AsyncGenerator[AsyncSession]:
        async with TestingSession() as session:
            yield session

    app.dependency_overrides[get_session] = get_testing_session
    yield
    app.dependency_overrides.clear()


@pytest_asyncio.fixture
async def session() -> AsyncGenerator[AsyncSession]:
    """Give a session of the tests' database."""
    async with TestingSession() as session:
        yield session


@pytest.fixture
def client() -> Generator[TestClient]:
    """Give a client of the application."""
    with TestClient(app) as client:
        yield client
