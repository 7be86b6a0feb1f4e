"""A table of notes, and as many others beside it as NOTES_TABLES says."""

import os

from sqlalchemy import Column, DateTime, ForeignKey, Integer, String, Table, func
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """The base of every model."""


class Note(Base):
    """A note with a title that no other note has."""

    __tablename__ = "notes"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(200), unique=True)


for number in range(1, int(os.environ.get("NOTES_TABLES", "1"))):
    Table(
        f"others_{number}",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("note_id", Integer, ForeignKey("notes.id"), index=True),
        Column("name", String(200), nullable=False, unique=True),
        Column("created_at", DateTime(timezone=True), server_default=func.now()),
    )

engine = create_async_engine(os.environ["DATABASE_URL"])
Session = async_sessionmaker(engine, expire_on_commit=False)
