"""What SQLAlchemy's own suite found in the sandbox, each on the smallest example."""

import asyncio
from typing import Any, cast

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from stillroom.testing.engines import direct_to, install
from tests.conftest import NewDatabase
from tests.testing.conftest import TRAP, RunningSandbox


async def test_the_shared_connection_cannot_be_ended(sandboxed: AsyncEngine) -> None:
    """Whoever asks PostgreSQL for its process id gets the one that all connections share."""
    async with sandboxed.connect() as connection:
        with pytest.raises(DBAPIError, match="may end the one connection"):
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        await connection.rollback()
        assert (await connection.execute(text("SELECT 1"))).scalar() == 1


async def test_a_lost_server_is_an_error_to_all(new_database: NewDatabase) -> None:
    """No statement waits for an answer that cannot come, and no new connection opens."""
    url = new_database()
    running = await asyncio.to_thread(RunningSandbox, url)
    install()
    direct_to(running.target)
    engine = create_async_engine(TRAP)
    async with engine.connect() as connection:
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        other = await cast("Any", asyncpg).connect(url)
        await other.execute("SELECT pg_terminate_backend($1, 5000)", pid)
        await other.close()
        with pytest.raises(DBAPIError, match="the connection that the tests share"):
            await connection.execute(text("SELECT 1"))
    with pytest.raises(DBAPIError, match="the connection that the tests share"):
        async with engine.connect():
            pass
    await engine.dispose()
    direct_to(None)
    await asyncio.to_thread(running.close)
