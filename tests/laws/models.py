"""The tables of the laws' application."""

from typing import Any

from sqlalchemy import DDL, ForeignKey, Numeric, String, UniqueConstraint, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom.idempotency import IdempotencyKeys
from stillroom.model import Model


class Base(Model, DeclarativeBase):
    """The base of the laws' tables."""


class Item(Base):
    """A row whose name is unique, and whose rules of every kind can be broken."""

    __tablename__ = "items"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40), unique=True)
    size: Mapped[int] = mapped_column(server_default="0")
    price: Mapped[float | None] = mapped_column(Numeric(4, 2))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("items.id"))


class Slot(Base):
    """A row whose uniqueness is checked at COMMIT."""

    __tablename__ = "slots"
    __table_args__ = (UniqueConstraint("name", deferrable=True, initially="DEFERRED"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))


class SlowCommit(Base):
    """A row whose COMMIT takes as many seconds as it says."""

    __tablename__ = "slow_commits"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    seconds: Mapped[float]


KEYS = IdempotencyKeys(Base.metadata)


def after_create(table: Any, statement: str) -> None:
    """Run a statement after the table was made."""
    event.listen(table, "after_create", DDL(statement))  # type: ignore[no-untyped-call]


after_create(
    SlowCommit.__table__,
    """CREATE FUNCTION sleep_at_commit() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_sleep(NEW.seconds); RETURN NULL; END'""",
)
after_create(
    SlowCommit.__table__,
    """CREATE CONSTRAINT TRIGGER sleep_at_commit AFTER INSERT ON slow_commits
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION sleep_at_commit()""",
)
after_create(Item.__table__, "ALTER TABLE items ADD CONSTRAINT ck_items_size CHECK (size < 1000)")
