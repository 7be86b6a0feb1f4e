"""The laws of the revisions, and the `alembic` command as it is typed in the service's folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from stillroom.testing.migrations import TestMigrations as TestMigrations  # noqa: PLC0414

from tests.conftest import SERVICE
from tests.integration.command import alembic

NewDatabase = Callable[..., str]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy what the command needs, so that a new revision is not one of the service."""
    folder = tmp_path / "copy"
    folder.mkdir()
    shutil.copy(SERVICE / "pyproject.toml", folder)
    for name in ("app", "migrations"):
        shutil.copytree(SERVICE / name, folder / name)
    return folder


@pytest.fixture
def url(stillroom_new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make a database at head, and name it in the environment of the command."""
    url = stillroom_new_database(migrated=True)
    monkeypatch.setenv("DB_CONFIG", url)
    return url


def test_an_automatic_revision_is_empty_at_head(url: str, copy: Path) -> None:
    """`alembic revision --autogenerate` writes a clean file, which finds nothing to do."""
    known = set((copy / "migrations" / "versions").glob("*.py"))
    alembic("revision", "--autogenerate", "-m", "x", folder=copy)
    (new,) = set((copy / "migrations" / "versions").glob("*.py")) - known
    source = new.read_text()
    assert new.name.endswith("_x.py")
    assert "def upgrade()" in source
    assert "op." not in source
    alembic("upgrade", "head", folder=copy)


def test_a_change_of_a_model_is_written_as_a_revision(url: str, copy: Path) -> None:
    """A new column is found, and the revision that adds it can be applied and taken back."""
    model = copy / "app" / "models" / "user.py"
    column = "    full_name: Mapped[str] = mapped_column(String(200))\n"
    source = model.read_text()
    assert column in source
    model.write_text(source.replace(column, column + "    nickname: Mapped[str | None]\n"))
    alembic("revision", "--autogenerate", "-m", "Add a nickname", folder=copy)
    alembic("upgrade", "head", folder=copy)
    assert any("nickname" in line for line in schema(url))
    alembic("downgrade", "-1", folder=copy)
    assert not any("nickname" in line for line in schema(url))


def test_offline_sql_needs_no_database_and_makes_the_same(
    stillroom_new_database: NewDatabase, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`alembic upgrade head --sql` with no environment at all; what it prints may be run."""
    monkeypatch.delenv("DB_CONFIG")
    script = alembic("upgrade", "head", "--sql")
    other = stillroom_new_database()
    with psycopg.connect(other, autocommit=True) as connection:
        connection.execute(script.encode())
    assert schema(other) == schema(url)


def schema(url: str) -> set[str]:
    """Describe all that a database has of its own, but for Alembic's table, a line each."""
    with psycopg.connect(url) as connection:
        rows: list[tuple[Any, ...]] = connection.execute(SCHEMA).fetchall()
    return {str(row[0]) for row in rows}


SCHEMA = """
WITH tables AS (
  SELECT oid FROM pg_class
  WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname <> 'alembic_version'
)
SELECT format('%s.%s %s %s %s', attrelid::regclass, attname,
              format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid))
FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
WHERE attrelid IN (TABLE tables) AND attnum > 0 AND NOT attisdropped
UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint
WHERE conrelid IN (TABLE tables)
UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid IN (TABLE tables)
UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger
WHERE tgrelid IN (TABLE tables) AND NOT tgisinternal
UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT typname FROM pg_type
WHERE typnamespace = 'public'::regnamespace AND typtype IN ('e', 'd')
"""
