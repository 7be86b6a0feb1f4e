"""The configuration, from the environment."""

import os
from pathlib import Path

from stillroom.postgres import database_url


class Config:
    """Read each setting from the environment when it is asked for."""

    @property
    def DB_CONFIG(self) -> str:  # noqa: N802 - the name of the variable
        """The database URL: DB_CONFIG, or DB_USER, DB_PASSWORD, DB_HOST and DB_NAME.

        With none of them set it is the development cluster that `stillroom dev` has started here.
        Raises stillroom.errors.ConfigurationError when there is no database to be found.
        """
        return database_url(os.environ, Path(__file__).parents[1])


config = Config()
