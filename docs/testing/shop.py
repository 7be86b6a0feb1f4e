"""A shop that knows nothing of Stillroom: its own models, engine and sessions."""

import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from sqlalchemy import ForeignKey, String, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """The base of the models."""


class Product(Base):
    """What is sold."""

    __tablename__ = "products"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    stock: Mapped[int] = mapped_column(default=0)


class Order(Base):
    """How many of a product somebody wants."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"))
    quantity: Mapped[int]
    product: Mapped[Product] = relationship()


engine = create_async_engine(
    os.environ.get("DATABASE_URL", "postgresql+asyncpg://shop:secret@database.invalid/shop")
)
new_session = async_sessionmaker(engine, expire_on_commit=False)


async def get_session() -> AsyncIterator[AsyncSession]:
    """Give the request a session."""
    async with new_session() as session:
        yield session


app = FastAPI()


@app.post("/orders/{name}/{quantity}", status_code=201)
async def order(
    name: str, quantity: int, session: AsyncSession = Depends(get_session)
) -> dict[str, int]:
    """Take an order if there is enough."""
    sold = await session.execute(
        update(Product)
        .where(Product.name == name, Product.stock >= quantity)
        .values(stock=Product.stock - quantity)
        .returning(Product.id)
    )
    if (product_id := sold.scalar()) is None:
        raise HTTPException(409, "There is not enough of it.")
    placed = Order(product_id=product_id, quantity=quantity)
    session.add(placed)
    await session.commit()
    return {"id": placed.id}


@app.get("/orders")
async def orders(session: AsyncSession = Depends(get_session)) -> list[dict[str, Any]]:
    """List the orders, by far too many queries."""
    result = []
    for placed in await session.scalars(select(Order).order_by(Order.id)):
        product = await session.get_one(Product, placed.product_id, populate_existing=True)
        result.append({"product": product.name, "quantity": placed.quantity})
    return result
