"""What the page shows of tests that fail, each with the message that it quotes.

`pytest failing.py` runs them; a test of Stillroom looks whether the messages are the page's.
"""

import asyncio
from collections.abc import AsyncGenerator

import asyncpg
import pytest_asyncio
from httpx2 import AsyncClient
from shop import Order, Product, engine, new_session
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.testing.queries import QueryLog


async def test_forgotten_commit(async_client: AsyncClient, session: AsyncSession) -> None:
    session.add(Product(name="tea", stock=3))
    await session.flush()

    assert (await async_client.get("/orders")).json() == []


async def test_waiting_in_vain(session: AsyncSession) -> None:
    session.add(Product(name="tea", stock=3))
    await session.flush()

    async def look() -> None:
        async with new_session() as other:
            await other.get(Order, 1)

    await asyncio.create_task(look())


@pytest_asyncio.fixture(scope="class")
async def unfinished() -> AsyncGenerator[AsyncSession]:
    async with new_session() as session:
        session.add(Product(name="tea", stock=3))
        await session.flush()
        yield session


class TestWithin:
    async def test_within_a_transaction(self, unfinished: AsyncSession) -> None:
        await unfinished.get(Order, 1)


async def test_notification(session: AsyncSession) -> None:
    await session.execute(text("NOTIFY orders"))


async def test_concurrent_index(session: AsyncSession) -> None:
    await session.execute(text("CREATE INDEX CONCURRENTLY here ON orders (quantity)"))


async def test_serializable() -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="SERIALIZABLE")
        await connection.execute(text("SELECT 1"))


def test_another_driver() -> None:
    with create_engine("postgresql+psycopg://database.invalid/shop").connect():
        pass


async def test_n_plus_one(
    async_client: AsyncClient, session: AsyncSession, queries: QueryLog
) -> None:
    session.add_all(
        Order(product=Product(name=name, stock=1), quantity=1) for name in ("tea", "coffee", "cake")
    )
    await session.commit()

    with queries.at_most(2):
        await async_client.get("/orders")


async def test_past_the_engines() -> None:
    await asyncpg.connect("postgresql://shop:secret@database.invalid/shop")


left_open = new_session()


async def test_a_session_is_left_open() -> None:
    left_open.add(Product(name="tea", stock=3))
    await left_open.flush()


async def test_a_session_of_another_test() -> None:
    await left_open.get(Product, 1, populate_existing=True)
