"""Users, and what has happened to them: two rows for each request that writes."""

from sqlalchemy import ForeignKey, String
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The base of the models."""


class User(Base):
    """Somebody."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(200), unique=True)


class Event(Base):
    """What has happened to somebody."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    what: Mapped[str] = mapped_column(String(50))


engine = create_async_engine("postgresql+asyncpg://app:secret@database.invalid/app")
new_session = async_sessionmaker(engine, expire_on_commit=False)


async def sign_up(session: AsyncSession, email: str) -> User:
    """Make a user, and note it; nothing is committed."""
    user = User(email=email)
    session.add(user)
    await session.flush()
    session.add(Event(user_id=user.id, what="signed up"))
    await session.flush()
    return user
