"""The shop over HTTP."""

from decimal import Decimal
from typing import Annotated, TypeVar

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, PositiveInt
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from shop.database import get_session
from shop.models import Author, Base, Book, Customer, Line, Order, Status

Stored = TypeVar("Stored", bound=Base)

Database = Annotated[AsyncSession, Depends(get_session)]

app = FastAPI(title="Bookshop")


class Shown(BaseModel):
    """What is read from a model."""

    model_config = ConfigDict(from_attributes=True)


class AuthorIn(BaseModel):
    """An author to be."""

    name: str


class AuthorOut(Shown):
    """An author."""

    id: int
    name: str


class BookIn(BaseModel):
    """A book to be."""

    title: str
    price: Decimal
    stock: int = 0
    author_id: int


class BookOut(Shown):
    """A book."""

    id: int
    title: str
    price: Decimal
    stock: int


class CustomerIn(BaseModel):
    """A customer to be."""

    email: str


class CustomerOut(Shown):
    """A customer."""

    id: int
    email: str


class LineIn(Shown):
    """How many of one book."""

    book_id: int
    quantity: PositiveInt


class OrderIn(BaseModel):
    """An order to be."""

    customer_id: int
    lines: list[LineIn]


class OrderOut(Shown):
    """An order."""

    id: int
    status: Status
    lines: list[LineIn]


@app.post("/authors", status_code=201, response_model=AuthorOut)
async def add_author(author: AuthorIn, session: Database) -> Author:
    """Add an author with a name that no other has."""
    return await _add(session, Author(name=author.name))


@app.get("/authors", response_model=list[AuthorOut])
async def get_authors(session: Database) -> list[Author]:
    """Return all authors by name."""
    return list(await session.scalars(select(Author).order_by(Author.name)))


@app.post("/books", status_code=201, response_model=BookOut)
async def add_book(book: BookIn, session: Database) -> Book:
    """Add a book of an author who is known."""
    return await _add(session, Book(**book.model_dump()))


@app.get("/books", response_model=list[BookOut])
async def get_books(session: Database, author: str = "", in_stock: bool = False) -> list[Book]:
    """Return books by title."""
    query = select(Book).order_by(Book.title)
    if author:
        query = query.join(Author).where(Author.name == author)
    if in_stock:
        query = query.where(Book.stock > 0)
    return list(await session.scalars(query))


@app.delete("/books/{number}", status_code=204)
async def delete_book(number: int, session: Database) -> None:
    """Take a book out of the shop."""
    await session.delete(await _get(session, Book, number))
    await session.commit()


@app.post("/customers", status_code=201, response_model=CustomerOut)
async def add_customer(customer: CustomerIn, session: Database) -> Customer:
    """Add a customer."""
    return await _add(session, Customer(email=customer.email))


@app.post("/orders", status_code=201, response_model=OrderOut)
async def add_order(order: OrderIn, session: Database) -> Order:
    """Take all books of an order out of stock, or none."""
    await _get(session, Customer, order.customer_id)
    created = Order(customer_id=order.customer_id)
    for line in order.lines:
        book = await _get(session, Book, line.book_id)
        book.stock -= line.quantity
        created.lines.append(Line(book_id=line.book_id, quantity=line.quantity))
    return await _add(session, created)


@app.get("/orders/{number}", response_model=OrderOut)
async def get_order(number: int, session: Database) -> Order:
    """Return one order."""
    return await _get(session, Order, number)


@app.post("/orders/{number}/{step}", response_model=OrderOut)
async def go_on(number: int, step: str, session: Database) -> Order:
    """Pay an open order, or cancel it and take its books back."""
    order = await _get(session, Order, number)
    if order.status is not Status.OPEN or step not in ("pay", "cancel"):
        raise HTTPException(409)
    order.status = Status.PAID if step == "pay" else Status.CANCELLED
    if step == "cancel":
        for line in order.lines:
            (await _get(session, Book, line.book_id)).stock += line.quantity
    await session.commit()
    return order


async def _get(session: AsyncSession, model: type[Stored], number: int) -> Stored:
    if (found := await session.get(model, number)) is None:
        raise HTTPException(404)
    return found


async def _add(session: AsyncSession, created: Stored) -> Stored:
    session.add(created)
    try:
        await session.commit()
    except IntegrityError as error:
        await session.rollback()
        raise HTTPException(409) from error
    return created
