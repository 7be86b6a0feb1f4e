"""Which database a driver is told to connect to."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import URL, make_url

from stillroom.errors import ConfigurationError


class Place(NamedTuple):
    """A database of a server, by the words that a driver gets: `localhost` is not `127.0.0.1`."""

    host: str
    port: str
    database: str

    @classmethod
    def of_url(cls, url: str | URL) -> "Place":
        """Return what a URL names.

        Raises ConfigurationError where it leaves the host or the database to the environment, for
        that may mean production.
        """
        url = make_url(url)
        host = url.host or url.query.get("host") or ""
        if not host or not isinstance(host, str) or not url.database:
            msg = (
                f"The URL of a test's database names one host and one database; this one names "
                f"host {host or 'none'}, database {url.database or 'none'}"
            )
            raise ConfigurationError(msg)
        return cls(host, str(url.port or url.query.get("port") or _PORT), url.database)

    @classmethod
    def of_address(cls, address: str | tuple[str, int], database: str) -> "Place":
        """Return the place of an address of asyncpg's: a socket's path, or host and port."""
        if isinstance(address, str):
            folder, _, port = address.rpartition("/.s.PGSQL.")
            return cls(folder, port, database)
        return cls(address[0], str(address[1]), database)

    @classmethod
    def of_libpq(cls, parameters: Mapping[str, Any]) -> "Place":
        """Return where libpq would go with these parameters, its environment variables included.

        A service may say anything that is not said here: its name stands for the host then.
        """

        def value(name: str, default: str = "") -> str:
            given = parameters.get(name)
            if given is None:
                given = os.environ.get(_VARIABLES[name])
            return str(given or default)

        database = value("dbname", default=value("user"))
        if value("service") and any(parameters.get(name) is None for name in _ADDRESS):
            return cls(f"of the service {value('service')}", "", database)
        return cls(value("hostaddr") or value("host"), value("port", _PORT), database)

    def __str__(self) -> str:
        """Read as a part of a sentence."""
        port = f", port {self.port}" if self.port else ""
        return f"database {self.database or 'unknown'}, host {self.host or 'unknown'}{port}"


_PORT = "5432"
_VARIABLES = {
    "dbname": "PGDATABASE",
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "service": "PGSERVICE",
    "user": "PGUSER",
}
_ADDRESS = ("dbname", "host", "hostaddr", "port")
