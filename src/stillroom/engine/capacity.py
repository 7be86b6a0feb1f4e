"""How many connections PostgreSQL has for the processes of a service."""

import logging
from collections import Counter
from collections.abc import Iterable

from sqlalchemy import URL, NullPool, text

from stillroom.engine import POOL_SIZE, EngineSettings, create_engine
from stillroom.engine.pooler import goes_through_pooler
from stillroom.errors import ConfigurationError, DatabaseUnavailableError
from stillroom.url import show_url

KEPT_FREE = 3
"""How many connections no pool takes: a migration and a psql have to get in, too."""

logger = logging.getLogger("stillroom")

_LIMITS = text(
    "SELECT current_setting('max_connections', true)::int,"
    " coalesce(current_setting('superuser_reserved_connections', true)::int, 0)"
    " + coalesce(current_setting('reserved_connections', true)::int, 0)"
)


async def fitting_pool_size(
    pools: Iterable[URL], settings: EngineSettings, workers: int
) -> int | None:
    """Return the size with which the pools of all workers fit into PostgreSQL at once.

    `pools` has the URL of each pool of one worker. It is the size of the settings, or where they
    name none, at most 10; None where a server is away, which is logged. Raises ConfigurationError
    where even one connection a pool is too many, or the size of the settings is.
    """
    sizes = [settings.pool_size or POOL_SIZE]
    for url, number in Counter(pools).items():
        try:
            maximum, reserved = await _limits(url, settings)
        except DatabaseUnavailableError as error:
            logger.warning("The pools were not compared with what PostgreSQL has: %s", error)
            return settings.pool_size
        if maximum is None:  # it speaks PostgreSQL's protocol, and counts otherwise
            continue
        fitting = (maximum - reserved - KEPT_FREE) // (workers * number)
        if fitting < (settings.pool_size or 1):
            raise ConfigurationError(
                f"{workers} workers x {number} pools x {settings.pool_size or 1} connections are "
                f"more than PostgreSQL has at {show_url(url)}: max_connections is {maximum}, of "
                f"which {reserved} are reserved and {KEPT_FREE} kept for a migration and psql. "
                f"{_advice(fitting)}"
            )
        sizes.append(fitting)
    if min(sizes) < POOL_SIZE and settings.pool_size is None:
        logger.info(
            "Each of the %s workers has pools of %s instead of %s connections: PostgreSQL has no "
            "more for all of them (max_connections).",
            workers,
            min(sizes),
            POOL_SIZE,
        )
    return min(sizes)


async def _limits(url: URL, settings: EngineSettings) -> tuple[int | None, int]:
    engine = create_engine(url, settings, poolclass=NullPool)
    async with engine.connect() as connection:
        if goes_through_pooler(engine.dialect):
            return None, 0  # max_connections limits PgBouncer's pool, max_client_conn is its own
        maximum, reserved = (await connection.execute(_LIMITS)).one()
    return maximum, reserved


def _advice(fitting: int) -> str:
    size = f"Set pool_size to {fitting} at most, start" if fitting > 0 else "Start"
    return f"{size} fewer --workers, or raise max_connections."
