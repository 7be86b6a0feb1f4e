"""Migrations are safe to start from many processes at once."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine

from stillroom.errors import DatabaseUnavailableError
from stillroom.migrations.lock import lock_migrations
from tests.migrations.test_environment import alembic, folder, tables
from tests.processes import eventually

__all__ = ["folder"]

REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{number}", {before}

def upgrade():
    op.create_table("jars_{number}", sa.Column("id", sa.Integer, primary_key=True))
    with op.get_context().autocommit_block():
        op.create_index("ix_{number}", "jars_{number}", ["id"], postgresql_concurrently=True)
"""


# Those who wait ask for the lock in a transaction, every tenth of a second.
ASKED = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name = 'stillroom' AND query LIKE 'COMMIT%'"
)


def write_revisions(folder: Path) -> None:
    """Write two, each of which builds an index concurrently."""
    for number, before in ((1, None), (2, '"1"')):
        path = folder / "migrations" / "versions" / f"{number}.py"
        path.write_text(REVISION.format(number=number, before=before))


def test_of_many_processes_one_migrates(folder: Path, database_url: str) -> None:
    """Each revision runs once, no process fails, and none keeps an index from being built."""
    write_revisions(folder)
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as another, psycopg.connect(database_url, autocommit=True) as looking:
        lock_migrations(another)  # until all have come to it

        def have_asked() -> bool:
            row = looking.execute(ASKED).fetchone()
            return row == (4,)

        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "alembic", "upgrade", "head"],
                cwd=folder,
                env={**os.environ, "DB_CONFIG": database_url},
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        assert eventually(have_asked)
        assert tables(database_url) == set()
    engine.dispose()
    said = [process.communicate(timeout=120)[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0, 0], said
    assert sum(one.count("Running upgrade") for one in said) == 2
    assert tables(database_url) == {"alembic_version", "jars_1", "jars_2"}


def test_who_waits_in_vain_is_told_for_what(database_url: str) -> None:
    """A migration that hangs does not let all others hang for ever."""
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as one, engine.connect() as other:
        lock_migrations(one)
        with pytest.raises(DatabaseUnavailableError, match=r"not ended within 0\.2 s.*pg_locks"):
            lock_migrations(other, wait=0.2)
    engine.dispose()


def test_what_only_looks_does_not_wait(folder: Path, database_url: str) -> None:
    """`alembic current` says at once where a database stands that is being migrated."""
    write_revisions(folder)
    with psycopg.connect(database_url, autocommit=True) as connection:
        engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
        with engine.connect() as migrating:
            lock_migrations(migrating)
            assert alembic(folder, database_url, "current").returncode == 0
            row = connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            assert row.fetchone() == (1,)
        engine.dispose()
