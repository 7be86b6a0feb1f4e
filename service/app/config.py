"""The configuration, from the environment."""

import os
from pathlib import Path

from stillroom.postgres import database_url, direct_url, through_pgbouncer

_FOLDER = Path(__file__).parents[1]


class Config:
    """Read each setting from the environment when it is asked for."""

    @property
    def DB_CONFIG(self) -> str:  # noqa: N802 - the name of the variable
        """The database URL: DB_CONFIG, or DB_USER, DB_PASSWORD, DB_HOST and DB_NAME.

        With none of them set it is the development cluster that `stillroom dev` has started here.
        Raises stillroom.errors.ConfigurationError when there is no database to be found.
        """
        return database_url(os.environ, _FOLDER)

    @property
    def DB_DIRECT(self) -> str:  # noqa: N802 - as above
        """The URL for migrations, which do not go through PgBouncer: DB_DIRECT, else DB_CONFIG."""
        return direct_url(os.environ, _FOLDER)

    @property
    def DB_PGBOUNCER(self) -> bool | None:  # noqa: N802 - as above
        """Whether DB_CONFIG leads to PgBouncer: 1, 0, or not set to find out.

        Raises stillroom.errors.ConfigurationError for anything else.
        """
        return through_pgbouncer(os.environ)


config = Config()
