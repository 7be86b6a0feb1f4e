"""What the page shows of tests that pass."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest
from fastapi.testclient import TestClient
from httpx2 import AsyncClient
from shop import Order, Product, new_session
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.testing.queries import QueryLog


async def test_an_order_takes_from_the_stock(
    async_client: AsyncClient, session: AsyncSession
) -> None:
    session.add(Product(name="tea", stock=3))
    await session.commit()

    assert (await async_client.post("/orders/tea/2")).status_code == 201
    assert (await async_client.post("/orders/tea/2")).status_code == 409
    assert (await async_client.get("/orders")).json() == [{"product": "tea", "quantity": 2}]


async def test_nobody_sells_what_is_not_there(
    async_client: AsyncClient, session: AsyncSession
) -> None:
    session.add(Product(name="tea", stock=10))
    await session.commit()

    answers = await asyncio.gather(*(async_client.post("/orders/tea/1") for _ in range(30)))

    assert sorted(answer.status_code for answer in answers) == [201] * 10 + [409] * 20


def test_a_synchronous_one(client: TestClient) -> None:
    assert client.post("/orders/tea/1").status_code == 409


@pytest.mark.stillroom(isolation="clone")
async def test_somebody_else_looks(
    async_client: AsyncClient, session: AsyncSession, stillroom_url: str
) -> None:
    session.add(Product(name="tea", stock=3))
    await session.commit()

    other = await asyncpg.connect(stillroom_url)
    assert await other.fetchval("SELECT stock FROM products") == 3
    await other.close()


async def test_a_list_needs_one_query(
    async_client: AsyncClient, session: AsyncSession, queries: QueryLog
) -> None:
    session.add(Product(name="tea", stock=3))
    await session.commit()

    with queries.at_most(1):
        assert (await async_client.get("/orders")).json() == []


@pytest.fixture(scope="class")
def catalogue() -> Iterator[None]:
    async def fill() -> None:
        async with new_session() as session:
            session.add_all(Product(name=name, stock=5) for name in ("tea", "coffee"))
            await session.commit()

    asyncio.run(fill())
    yield


@pytest.mark.usefixtures("catalogue")
class TestCatalogue:
    @pytest.mark.parametrize("name", ["tea", "coffee"])
    def test_each_test_finds_it_full(self, client: TestClient, name: str) -> None:
        assert client.post(f"/orders/{name}/5").status_code == 201


async def test_what_a_test_looks_at_it_commits_first(session: AsyncSession) -> None:
    session.add(Order(product=Product(name="tea", stock=1), quantity=1))
    await session.commit()

    async with new_session() as other:
        assert (await other.get_one(Order, 1)).quantity == 1
