"""What the table promises to every writer, this service or another."""

from datetime import datetime
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession


async def insert(
    session: AsyncSession, email: str, full_name: str
) -> tuple[UUID, datetime, datetime]:
    """Insert a user as another program does."""
    values = {"email": email, "full_name": full_name}
    row = await one(
        session,
        "INSERT INTO users (email, full_name) VALUES (:email, :full_name) "
        "RETURNING id, created_at, updated_at",
        **values,
    )
    return row[0], row[1], row[2]


async def one(session: AsyncSession, sql: str, **values: Any) -> tuple[Any, ...]:
    """Run a statement and return its one row."""
    return tuple((await session.execute(text(sql), values)).one())


async def test_a_writer_of_plain_sql_gets_an_id(
    session: AsyncSession, async_client: httpx2.AsyncClient
) -> None:
    """Other writers need not make ids, and their users are found like any other."""
    id, _, _ = await insert(session, "sql@example.com", "S. Q. L.")
    await session.commit()
    found = await async_client.get("/api/user/get-user", params={"id": str(id)})
    assert found.json() == {"id": str(id), "email": "sql@example.com", "full_name": "S. Q. L."}


async def test_times_are_kept_by_the_database(session: AsyncSession) -> None:
    """`created_at` stays, `updated_at` moves with each update, inside a transaction too."""
    id, created, updated = await insert(session, "time@example.com", "Time")
    assert abs((updated - created).total_seconds()) < 1
    for _ in range(2):
        before = updated
        row = await one(
            session,
            "UPDATE users SET full_name = 'T', updated_at = 'epoch' WHERE id = :id "
            "RETURNING created_at, updated_at",
            id=id,
        )
        assert row[0] == created
        updated = row[1]
        assert updated > before


async def test_times_of_a_user_created_over_http_are_set(
    session: AsyncSession, async_client: httpx2.AsyncClient
) -> None:
    """The service writes neither of them; the default does."""
    user = {"email": "a@example.com", "full_name": "A"}
    await async_client.post("/api/user/create-user", json=user)
    row = await one(
        session,
        "SELECT clock_timestamp() - created_at, clock_timestamp() - updated_at FROM users",
    )
    assert all(0 <= age.total_seconds() < 60 for age in row)


async def test_an_email_is_unique_for_every_writer(session: AsyncSession) -> None:
    """The index does not know case, beyond ASCII too."""
    await insert(session, "émilie@example.com", "First")
    with pytest.raises(IntegrityError, match="UniqueViolation"):
        await insert(session, "ÉMILIE@EXAMPLE.COM", "Second")


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
async def test_a_blank_name_is_refused_from_every_writer(session: AsyncSession, name: str) -> None:
    """The table holds the rule as well."""
    with pytest.raises(IntegrityError, match="CheckViolation"):
        await insert(session, "blank@example.com", name)
