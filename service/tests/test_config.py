"""The configuration, from the environment."""

import pytest

from app.config import config


def test_db_config_is_the_whole_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """It wins over the parts, and is read when it is asked for."""
    monkeypatch.setenv("DB_HOST", "elsewhere")
    for url in ("postgresql://one.example.com/users", "postgresql://two.example.com/users"):
        monkeypatch.setenv("DB_CONFIG", url)
        assert url == config.DB_CONFIG


def test_the_parts_make_a_url_for_asyncpg(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host may carry a port, and a password any character."""
    monkeypatch.delenv("DB_CONFIG")
    parts = {"USER": "ada", "PASSWORD": "a@b:c/d%", "HOST": "db.example.com:6432", "NAME": "users"}
    for name, value in parts.items():
        monkeypatch.setenv(f"DB_{name}", value)
    assert config.DB_CONFIG == (
        "postgresql+asyncpg://ada:a%40b%3Ac%2Fd%25@db.example.com:6432/users"
    )
