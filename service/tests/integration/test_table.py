"""What the table promises to every writer, this service or another."""

from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import CheckViolation, UniqueViolation
from starlette.testclient import TestClient

Connection = psycopg.Connection[Any]

INSERT = "INSERT INTO users (email, full_name) VALUES (%s, %s) RETURNING id, created_at, updated_at"


@pytest.fixture
def table(database: str, connection: Connection) -> Connection:
    """Give a connection to the database with the empty table, in a transaction."""
    assert database
    return connection


def insert(table: Connection, email: str, full_name: str) -> tuple[UUID, datetime, datetime]:
    """Insert a user as another program does."""
    row = table.execute(INSERT, (email, full_name)).fetchone()
    assert row is not None
    return row[0], row[1], row[2]


def test_a_writer_of_plain_sql_gets_an_id(table: Connection, client: TestClient) -> None:
    """Other writers need not make ids, and their users are found like any other."""
    id, _, _ = insert(table, "sql@example.com", "S. Q. L.")
    found = client.get("/api/user/get-user", params={"id": str(id)})
    assert found.json() == {"id": str(id), "email": "sql@example.com", "full_name": "S. Q. L."}


def test_times_are_kept_by_the_database(table: Connection) -> None:
    """`created_at` stays, `updated_at` moves with each update, inside a transaction too."""
    with table.transaction():
        id, created, updated = insert(table, "time@example.com", "Time")
        assert abs((updated - created).total_seconds()) < 1
        for _ in range(2):
            before = updated
            row = table.execute(
                "UPDATE users SET full_name = 'T', updated_at = 'epoch' WHERE id = %s "
                "RETURNING created_at, updated_at",
                (id,),
            ).fetchone()
            assert row is not None
            assert row[0] == created
            updated = row[1]
            assert updated > before


def test_times_of_a_user_created_over_http_are_set(table: Connection, client: TestClient) -> None:
    """The service writes neither of them; the default does."""
    client.post("/api/user/create-user", json={"email": "a@example.com", "full_name": "A"})
    row = table.execute("SELECT now() - created_at, now() - updated_at FROM users").fetchone()
    assert row is not None
    assert all(0 <= age.total_seconds() < 60 for age in row)


def test_an_email_is_unique_for_every_writer(table: Connection) -> None:
    """The index does not know case, beyond ASCII too."""
    insert(table, "émilie@example.com", "First")
    with pytest.raises(UniqueViolation):
        insert(table, "ÉMILIE@EXAMPLE.COM", "Second")


@pytest.mark.parametrize("name", ["", " ", "\t\n"])
def test_a_blank_name_is_refused_from_every_writer(table: Connection, name: str) -> None:
    """The table holds the rule as well."""
    with pytest.raises(CheckViolation):
        insert(table, "blank@example.com", name)
