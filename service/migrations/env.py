"""The environment of the `alembic` command."""

from stillroom.migrations import run_environment

from app import models  # noqa: F401  # pyright: ignore[reportUnusedImport]  (to know the tables)
from app.config import config
from app.database import Base

run_environment(Base.metadata, lambda: config.DB_DIRECT)
