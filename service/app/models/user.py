"""The users."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import DDL, CheckConstraint, DateTime, FetchedValue, Index, String, event, func
from sqlalchemy.orm import Mapped, mapped_column
from uuid_utils.compat import uuid7

from app.database import Base


class User(Base):
    """A person with an e-mail address that nobody else has."""

    __tablename__ = "users"

    # Made here, where the order of the ids is that of creation; other writers get a random one.
    id: Mapped[UUID] = mapped_column(
        primary_key=True, default=uuid7, server_default=func.gen_random_uuid()
    )
    email: Mapped[str] = mapped_column(String(254))
    full_name: Mapped[str] = mapped_column(String(200))
    # clock_timestamp() moves on inside a transaction, now() does not.
    created_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True),
        server_default=func.clock_timestamp(),
        server_onupdate=FetchedValue(),
    )

    __table_args__ = (
        Index("uq_users_email", func.lower(email), unique=True),
        CheckConstraint(r"full_name ~ '\S'", name="full_name_not_blank"),
    )


def _after_create(statement: str) -> None:
    event.listen(User.__table__, "after_create", DDL(statement))  # type: ignore[no-untyped-call]


# The first revision creates the same function and trigger.
_after_create(
    """CREATE OR REPLACE FUNCTION set_updated_at() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN NEW.updated_at := clock_timestamp(); RETURN NEW; END'"""
)
_after_create(
    """CREATE TRIGGER set_updated_at BEFORE UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION set_updated_at()"""
)
