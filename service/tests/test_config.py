"""The configuration, from the environment."""

import pytest
from stillroom.errors import ConfigurationError

from app.config import config


def test_db_config_is_the_whole_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """It wins over the parts, and is read when it is asked for."""
    monkeypatch.setenv("DB_HOST", "elsewhere")
    for url in ("postgresql://one.example.com/users", "postgresql://two.example.com/users"):
        monkeypatch.setenv("DB_CONFIG", url)
        assert url == config.DB_CONFIG


def test_migrations_have_a_url_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """DB_DIRECT leads past PgBouncer; without it there is none, and DB_CONFIG is right."""
    monkeypatch.setenv("DB_CONFIG", "postgresql://pgbouncer.example.com/users")
    assert config.DB_DIRECT == config.DB_CONFIG
    monkeypatch.setenv("DB_DIRECT", "postgresql://db.example.com/users")
    assert config.DB_DIRECT == "postgresql://db.example.com/users"


def test_pgbouncer_is_declared_or_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """DB_PGBOUNCER is 1, 0 or nothing."""
    for said, meant in {"1": True, "0": False, "": None}.items():
        monkeypatch.setenv("DB_PGBOUNCER", said)
        assert config.DB_PGBOUNCER is meant
    monkeypatch.setenv("DB_PGBOUNCER", "yes")
    with pytest.raises(ConfigurationError, match=r"DB_PGBOUNCER is 'yes'\. It is 1"):
        _ = config.DB_PGBOUNCER


def test_the_parts_make_a_url_for_asyncpg(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host may carry a port, and a password any character."""
    monkeypatch.delenv("DB_CONFIG")
    parts = {"USER": "ada", "PASSWORD": "a@b:c/d%", "HOST": "db.example.com:6432", "NAME": "users"}
    for name, value in parts.items():
        monkeypatch.setenv(f"DB_{name}", value)
    assert config.DB_CONFIG == (
        "postgresql+asyncpg://ada:a%40b%3Ac%2Fd%25@db.example.com:6432/users"
    )
