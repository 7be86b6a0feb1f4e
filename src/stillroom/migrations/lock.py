"""One migration of a database at a time, from however many processes."""

import logging
import time
from zlib import crc32

from sqlalchemy import Connection, text

from stillroom.errors import DatabaseUnavailableError

WAIT = 300.0
"""How long, in seconds, a migration waits for another one to end."""

logger = logging.getLogger("stillroom")


def lock_migrations(connection: Connection, wait: float = WAIT) -> None:
    """Wait until no other process migrates the database, and let none begin while this one does.

    The lock is the session's and ends with the connection, for a migration may commit in between.
    It is asked for again and again: who waited in PostgreSQL for it would hold a snapshot, for
    whose end a CREATE INDEX CONCURRENTLY waits. Raises DatabaseUnavailableError after `wait`
    seconds. https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
    """
    deadline = time.monotonic() + wait
    has_said = False
    while not _try_lock(connection):
        if time.monotonic() > deadline:
            msg = (
                f"Another migration of the database has not ended within {wait:g} s. Look in "
                "pg_locks (locktype 'advisory') which session holds the lock, and try again when "
                "it has ended."
            )
            raise DatabaseUnavailableError(msg)
        if not has_said:
            logger.info("Another process migrates the database; waiting for it to end")
            has_said = True
        time.sleep(_PAUSE)


def _try_lock(connection: Connection) -> bool:
    has_locked: bool = connection.execute(_TRY, {"key": _KEY}).scalar_one()
    connection.commit()
    return has_locked


_PAUSE = 0.1  # seconds
_KEY = crc32(b"stillroom.migrations")
_TRY = text("SELECT pg_try_advisory_lock(:key)")
