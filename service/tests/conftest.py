"""What all tests need: no database but that of the run."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[1]

NOWHERE = "postgresql://larder:secret@database.invalid/larder"
"""A database that does not exist: where a URL leads is no matter in a test, unless it says so."""


@pytest.fixture(scope="session", autouse=True)
def environment() -> Iterator[None]:
    """Forget what the environment says of a database, and name one that nobody can reach."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("DB_", "PG"))]:
            patch.delenv(name)
        patch.setenv("DB_CONFIG", NOWHERE)
        yield
