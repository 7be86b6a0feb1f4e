"""The PostgreSQL server of a run of tests: one that a URL names, or a private one."""

import shlex
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from sqlalchemy import make_url

from stillroom.errors import ConfigurationError
from stillroom.postgres import Cluster, temporary_cluster
from stillroom.testing.databases.kept import KeptCluster
from stillroom.url import parse_url


class Server(Protocol):
    """A PostgreSQL server on which a run makes its databases."""

    is_private: bool
    """Whether all that is on it is this run's."""

    @property
    def origin(self) -> str:
        """Say in a few words where the server comes from."""
        ...

    def launch(self) -> None:
        """Begin to start it, without waiting."""
        ...

    def url(self, database: str | None = None) -> str:
        """Return the URL of a database, or of one that always exists; wait for the server."""
        ...

    def psql(self, database_url: str) -> str:
        """Return the command line of psql on a database."""
        ...

    def ending(self, left: Sequence[str]) -> str:
        """Return the command that removes what `leave` has left: databases, by their URLs."""
        ...

    def leave(self) -> None:
        """Let the server outlive `stop`, with the databases that a person shall look at."""
        ...

    def stop(self, *, keep: bool = False) -> None:
        """Stop it, if it was started here; `keep` its data for the next run of the project."""
        ...


class GivenServer:
    """A server that somebody else runs, and that other runs may use at the same time."""

    is_private = False

    def __init__(self, url: str, origin: str) -> None:
        """Take the URL of a database that exists, by a role that may create others.

        Raises ConfigurationError for a URL that cannot be used.
        """
        self.origin = origin
        try:
            self._url = parse_url(url).set(drivername="postgresql")
        except ConfigurationError as error:
            msg = f"{origin}, which names the server for the tests, cannot be used. {error}"
            raise ConfigurationError(msg) from error

    def launch(self) -> None:
        """Do nothing: it runs."""

    def url(self, database: str | None = None) -> str:
        """Return the URL of a database."""
        url = self._url if database is None else self._url.set(database=database)
        return url.render_as_string(hide_password=False)

    def psql(self, database_url: str) -> str:
        """Return the command line of psql on a database, without a password."""
        bare = make_url(database_url).set(password=None).render_as_string()
        return shlex.join(["psql", bare])

    def ending(self, left: Sequence[str]) -> str:
        """Return the command that drops databases: who runs the server ends it."""
        drops = [f"-c 'DROP DATABASE {make_url(url).database}'" for url in left]
        return " ".join([self.psql(self.url()), *drops])

    def leave(self) -> None:
        """Do nothing: it is not this run's."""

    def stop(self, *, keep: bool = False) -> None:
        """Do nothing: it is not this run's."""


class PrivateServer:
    """A server of this run's own, on a copy of what the last run of the project has kept."""

    is_private = True

    def __init__(self, project: Path) -> None:
        """Take the root folder of the project."""
        self._kept = KeptCluster(project)
        self._stack = ExitStack()
        self._cluster: Future[Cluster] | None = None

    @property
    def origin(self) -> str:
        """Say which programs it runs, or that it does not run: whoever needs its URL hears why."""
        if self._cluster is None or self._cluster.exception() is not None:
            return "private, not started"
        return f"private, {self._started().origin}"

    def launch(self) -> None:
        """Start the server in the background: it boots while the application is imported."""
        executor = ThreadPoolExecutor(1, "stillroom-server")
        self._cluster = executor.submit(self._start)
        executor.shutdown(wait=False)

    def url(self, database: str | None = None) -> str:
        """Return the URL of a database; wait for the server."""
        return self._started().url(database or "postgres")

    def psql(self, database_url: str) -> str:
        """Return the command line of psql on a database."""
        return shlex.join([self._started().psql_command("")[0], database_url])

    def ending(self, left: Sequence[str]) -> str:
        """Return the command that ends the server; its data go with it."""
        _ = left
        return f"kill -INT {self._started().pids[0]}"

    def leave(self) -> None:
        """Let the server run on."""
        self._started().leave()

    def stop(self, *, keep: bool = False) -> None:
        """Stop the server, and remove its data."""
        if self._cluster is not None:
            wait([self._cluster])  # else what starts now would be stopped by nobody
        with self._stack:
            if keep:
                self._kept.replace(self._started().data)

    def _started(self) -> Cluster:
        if self._cluster is None:
            msg = "The server of the tests has not been launched."
            raise RuntimeError(msg)
        return self._cluster.result()

    def _start(self) -> Cluster:
        with self._kept.reading() as data:
            cluster = self._stack.enter_context(temporary_cluster(settings=_SETTINGS, copy_of=data))
        if data is None:
            self._kept.add_bare(cluster.data)
        return cluster


_SETTINGS = {"max_prepared_transactions": "10"}  # 0 by itself: two-phase commit could not be tested
