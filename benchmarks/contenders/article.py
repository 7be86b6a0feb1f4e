"""What the article builds: an async session of a dependency, entities, a response model.

Its create commits, and reads the row again. With ARTICLE_POOL=fixed the pool has no overflow.
"""

import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

from fastapi import Depends, FastAPI
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

FIXED = {"pool_size": 10, "max_overflow": 0}

engine = create_async_engine(
    os.environ["DATABASE_DSN"].replace("postgresql://", "postgresql+asyncpg://"),
    **(FIXED if os.environ.get("ARTICLE_POOL") == "fixed" else {}),
)
sessions = async_sessionmaker(engine, autocommit=False)


class Base(DeclarativeBase):
    """The base of every model."""


class User(Base):
    """A user."""

    __tablename__ = "users"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    full_name: Mapped[str]

    @classmethod
    async def create(cls, db: AsyncSession, **values: Any) -> "User":
        """Create a user."""
        user = cls(id=uuid4(), **values)
        db.add(user)
        await db.commit()
        await db.refresh(user)
        return user

    @classmethod
    async def get(cls, db: AsyncSession, id: UUID) -> "User | None":
        """Return a user."""
        return await db.get(cls, id)

    @classmethod
    async def get_all(cls, db: AsyncSession) -> "Sequence[User]":
        """Return all users."""
        return (await db.execute(select(cls))).scalars().all()


class UserSchemaCreate(BaseModel):
    """Hold what a new user is made of."""

    email: str
    full_name: str


class UserSchema(UserSchemaCreate):
    """Show a user."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID


async def get_db() -> AsyncGenerator[AsyncSession]:
    """Give a session, which is rolled back after an error, and closed."""
    session = sessions()
    try:
        yield session
    except Exception:
        await session.rollback()
        raise
    finally:
        await session.close()


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Close the pool at the end."""
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)


@app.get("/api/user/get-user", response_model=UserSchema)
async def get_user(id: UUID, db: AsyncSession = Depends(get_db)) -> Any:
    """Return a user."""
    return await User.get(db, id)


@app.get("/api/user/get-users", response_model=list[UserSchema])
async def get_users(db: AsyncSession = Depends(get_db)) -> Any:
    """Return all users."""
    return await User.get_all(db)


@app.post("/api/user/create-user", response_model=UserSchema)
async def create_user(user: UserSchemaCreate, db: AsyncSession = Depends(get_db)) -> Any:
    """Create a user."""
    return await User.create(db, **user.model_dump())
