"""The tables behind the shop."""

from decimal import Decimal

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from shop.models import Author, Book, Customer, Line, Order, Status


async def _book(session: AsyncSession, stock: int = 1) -> Book:
    book = Book(title="Emma", price=Decimal("9.90"), stock=stock, author=Author(name="Austen"))
    session.add(book)
    await session.commit()
    return book


async def test_ids_begin_at_one(session: AsyncSession) -> None:
    """In each test."""
    assert (await _book(session)).id == 1


async def test_a_book_comes_with_its_author(session: AsyncSession) -> None:
    """Both are stored."""
    await _book(session)
    assert await session.scalar(select(Author.name).join(Book)) == "Austen"


@pytest.mark.parametrize("email", ["ada@example.com", "bob@example.com"])
async def test_an_address_is_stored_once(session: AsyncSession, email: str) -> None:
    """The second is refused, and the session goes on."""
    session.add(Customer(email=email))
    await session.commit()
    session.add(Customer(email=email))
    with pytest.raises(IntegrityError):
        await session.commit()
    await session.rollback()
    assert await session.scalar(select(func.count()).select_from(Customer)) == 1


async def test_a_savepoint_is_rolled_back_alone(session: AsyncSession) -> None:
    """What was before it stays."""
    book = await _book(session)
    with pytest.raises(IntegrityError):
        async with session.begin_nested():
            book.stock = -1
    await session.commit()
    assert await session.scalar(select(Book.stock)) == 1


async def test_an_order_is_open_at_first(session: AsyncSession) -> None:
    """And has a time."""
    customer = Customer(email="ada@example.com")
    session.add(customer)
    await session.flush()
    order = Order(customer_id=customer.id)
    session.add(order)
    await session.commit()
    await session.refresh(order)
    assert order.status is Status.OPEN
    assert order.created_at is not None


async def test_lines_go_with_their_order(session: AsyncSession) -> None:
    """None is left."""
    book, customer = await _book(session), Customer(email="ada@example.com")
    session.add(customer)
    await session.flush()
    order = Order(customer_id=customer.id, lines=[Line(book_id=book.id, quantity=1)])
    session.add(order)
    await session.commit()
    await session.delete(order)
    await session.commit()
    assert (await session.scalars(select(Line))).all() == []
