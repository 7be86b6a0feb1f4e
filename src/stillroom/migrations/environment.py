"""All that an env.py has to call: an asynchronous environment of Alembic."""

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection, MetaData
from sqlalchemy.pool import NullPool

from stillroom.engine import EngineSettings, create_engine
from stillroom.engine.pooler import goes_through_pooler
from stillroom.errors import ConfigurationError, StillroomError
from stillroom.migrations.lock import lock_migrations
from stillroom.url import parse_url, show_url

LOCK_TIMEOUT = 5.0
"""How long, in seconds, a migration waits for a lock.

While it waits for the lock of a table, every later query of that table waits behind it; it is
better to fail and be tried again.
https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-LOCK-TIMEOUT
"""


def run_environment(metadata: MetaData, url: Callable[[], str], **options: Any) -> None:
    """Run the migrations that the `alembic` command, or `upgrade`, asks for.

    This is all that an env.py has to call. From however many processes, one migrates and the others
    wait for it (`lock_migrations`), and find nothing left to do. The URL never passes through an
    ini file, so a "%" in a password is no trouble; with ``--sql`` no URL is needed. Each revision
    is a transaction.
    Raises ConfigurationError, or Alembic's CommandError, for a URL that leads to PgBouncer.
    `options` go to Alembic's context.configure and win over what is chosen here.
    """
    options = {**_options(metadata), **options}
    if context.config.cmd_opts is not None:
        _log_to_stderr()
    if context.is_offline_mode():
        # Without a style of its own the script would have each "%" doubled, for a driver.
        style = {"paramstyle": "named"}
        context.configure(
            dialect_name="postgresql", literal_binds=True, dialect_opts=style, **options
        )
        context.execute(f"SET lock_timeout = '{LOCK_TIMEOUT:g}s'")
        with context.begin_transaction():
            context.run_migrations()
    else:
        try:
            address = context.config.attributes.get("url") or url()
            _complete(_migrate(address, options))
        except StillroomError as error:
            if context.config.cmd_opts is None:
                raise
            raise CommandError(str(error)) from error  # the command says it, without a stack


def _log_to_stderr() -> None:
    if not logging.getLogger().handlers:  # an env.py may have configured it otherwise
        logger = logging.getLogger("alembic")
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s [%(name)s] %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


def _options(metadata: MetaData) -> dict[str, Any]:
    schemas = {table.schema for table in metadata.tables.values()}

    def is_ours(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "schema" or name is None or name in schemas

    return {
        "include_schemas": schemas != {None},
        "include_name": is_ours,
        "target_metadata": metadata,
        "transaction_per_migration": True,
        "compare_server_default": True,
        "autogenerate_plugins": ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
    }


def _complete(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
    else:
        # Alembic's commands are synchronous: called in a running loop they block it, and the
        # work needs a loop of its own.
        with ThreadPoolExecutor(1) as executor:
            executor.submit(asyncio.run, work).result()


async def _migrate(url: str, options: dict[str, Any]) -> None:
    settings = EngineSettings(statement_timeout=0, lock_timeout=LOCK_TIMEOUT)
    parsed = parse_url(url)
    engine = create_engine(parsed, settings, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            if goes_through_pooler(engine.dialect):
                raise ConfigurationError(_THROUGH_POOLER.format(show_url(parsed)))
            await connection.run_sync(_run_migrations, options)
    finally:
        await engine.dispose()


_THROUGH_POOLER = (
    "{} leads to PgBouncer, through which migrations do not go: a lock or a setting of a session "
    "holds nothing there, so two upgrades could run at once. Give the URL of PostgreSQL itself: "
    "DB_DIRECT in the environment of a service that asks `direct_url` for it, or `url` of "
    "upgrade()."
)


def _run_migrations(connection: Connection, options: dict[str, Any]) -> None:
    if _command() not in _READS:
        lock_migrations(connection)
    context.configure(connection=connection, **options)
    with context.begin_transaction():
        context.run_migrations()


def _command() -> str:
    """Return which command of Alembic runs, where one does."""
    command: Any = getattr(context.config.cmd_opts, "cmd", None)
    return command[0].__name__ if command else ""


_READS = {"check", "current", "revision"}
