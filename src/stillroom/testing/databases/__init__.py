"""The databases that a run of tests makes on its server, and drops."""

import asyncio
import secrets
from typing import Any, cast

import asyncpg

from stillroom.errors import ConfigurationError, DatabaseUnavailableError
from stillroom.testing.databases.server import Server
from stillroom.testing.engines.drivers import own_connections

_FAMILY = 0x5711
"""The first key of the advisory locks, by which the runs on one server know each other."""


class Databases:
    """Make and drop databases under names that no other run on the server has.

    A connection holds an advisory lock with the number of the run for as long as the run lasts:
    the databases of a run that was killed are those whose number nobody holds.
    """

    def __init__(self, server: Server) -> None:
        """Take the server; it is waited for when a database is first needed."""
        self.made: set[str] = set()
        self.version = ""  # of the server; empty until one was connected to
        self._server = server
        self._number = secrets.randbits(31)
        self._count = 0
        self._connection: Any = None
        self._turn = asyncio.Lock()

    async def close(self, *, drop: bool = True) -> None:
        """Disconnect, and drop the databases of this run before, unless their server goes too."""
        if self._connection is not None:
            for name in sorted(self.made if drop else ()):
                await self.drop(name)
            await self._connection.close()

    async def create(self, template: str | None = None) -> str:
        """Make a database, empty or a copy of another one; return its name."""
        self._count += 1
        name = f"stillroom_run_{self._number}_{self._count}"
        copying = "" if template is None else f" TEMPLATE {template}{await self._strategy()}"
        self.made.add(name)
        await self._create(f"CREATE DATABASE {name}{copying}")
        return name

    async def drop(self, name: str) -> None:
        """Drop a database, whoever is still connected and whatever was only prepared there."""
        async with self._turn:
            await self._drop(await self._connected(), name)
        self.made.discard(name)

    async def leave(self, name: str) -> None:
        """Let a database outlive this run and all that come: somebody will look at it."""
        await self.execute(f"COMMENT ON DATABASE {name} IS 'left by a test that has failed'")
        self.made.discard(name)

    async def disconnect(self, name: str) -> None:
        """End the connections to a database, so that it can be copied."""
        sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1"
        await self.execute(sql, name)

    async def template_name(self, digest: str) -> str:
        """Return the name of a template, one for each role: what is in it belongs to its role."""
        return f"stillroom_template_{digest}_{await self.value(_ROLE)}"

    async def begin_template(self, name: str) -> bool:
        """Say whether a template has to be built; other runs then wait until `end_template`.

        If so an empty database of that name is there.
        """
        await self.execute("SELECT pg_advisory_lock($1, hashtext($2))", -_FAMILY, name)
        sql = "SELECT datistemplate FROM pg_database WHERE datname = $1"
        found = await self.value(sql, name)
        if found:
            await self._note_use(name)
            await self._unlock_template(name)
            return False
        if found is not None:  # who built it was killed
            await self.drop(name)
        await self._create(f"CREATE DATABASE {name}")
        return True

    async def end_template(self, name: str, *, is_whole: bool) -> None:
        """Keep a template that was built, closed to connections; drop one that was not."""
        if is_whole:
            await self._note_use(name)
            await self.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false IS_TEMPLATE true")
            await self._drop_unused()
        else:
            await self.drop(name)
        await self._unlock_template(name)

    async def keep_only(self, template: str) -> None:
        """Drop all that the runs of one project have made but this, and write all to files."""
        for name in sorted(self.made):
            await self.drop(name)
        for (name,) in await self.rows(_TEMPLATES):
            if name != template:
                await self._drop_template(name)
        await self.execute("CHECKPOINT")

    async def execute(self, sql: str, *values: Any) -> None:
        """Run a statement beside the tests."""
        await self._run("execute", sql, *values)

    async def value(self, sql: str, *values: Any) -> Any:
        """Return the one value of a statement."""
        return await self._run("fetchval", sql, *values)

    async def rows(self, sql: str) -> list[Any]:
        """Return the rows of a statement."""
        return list(await self._run("fetch", sql))

    async def _note_use(self, template: str) -> None:
        """Write down the day on which a template was last used, at most once a day."""
        today = f"{_USED}{await self.value('SELECT current_date::text')}"
        if await self.value(_COMMENT, template) != today:
            await self.execute(f"COMMENT ON DATABASE {template} IS '{today}'")

    async def _drop_unused(self) -> None:
        """Drop what is nobody's any more: a project makes a template for each of its schemas."""
        for (name,) in await self.rows(_UNUSED):
            lock = "SELECT pg_try_advisory_lock($1, hashtext($2))"
            if await self.value(lock, -_FAMILY, name):  # else somebody has just come to use it
                if name in [found for (found,) in await self.rows(_UNUSED)]:
                    await self._drop_template(name)
                await self._unlock_template(name)

    async def _drop_template(self, name: str) -> None:
        await self.execute(f"ALTER DATABASE {name} IS_TEMPLATE false")
        await self.drop(name)

    async def _create(self, sql: str) -> None:
        try:
            await self.execute(sql)
        except asyncpg.InsufficientPrivilegeError as error:
            msg = (
                f"The role on the server of the tests ({self._server.origin}) may not create "
                f"databases: {error}. A superuser allows it: ALTER ROLE its_name CREATEDB"
            )
            raise ConfigurationError(msg) from error

    async def _run(self, method: str, sql: str, *values: Any) -> Any:
        async with self._turn:
            return await getattr(await self._connected(), method)(sql, *values)

    async def _connected(self) -> Any:
        if self._connection is None:
            await self._begin()
        return self._connection

    async def _begin(self) -> None:
        connection = await self._connect()
        self.version = connection.get_settings().server_version.split()[0]
        await connection.execute("SELECT pg_advisory_lock($1, $2)", _FAMILY, self._number)
        self._connection = connection
        for (name,) in await connection.fetch(_OF_RUNS):
            number = int(name.split("_")[2])
            if await connection.fetchval("SELECT pg_try_advisory_lock($1, $2)", _FAMILY, number):
                if number != self._number:  # its run was killed
                    await self._drop(connection, name)
                await connection.execute("SELECT pg_advisory_unlock($1, $2)", _FAMILY, number)

    async def _drop(self, connection: Any, name: str) -> None:
        sql = f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"
        try:
            await connection.execute(sql)
        except asyncpg.ObjectInUseError:  # by what no end of a connection ends
            await self._roll_back_prepared(name)
            await connection.execute(sql)

    async def _roll_back_prepared(self, name: str) -> None:
        inside = await self._connect(name)  # from elsewhere PostgreSQL does not do it
        try:
            for (statement,) in await inside.fetch(_PREPARED):
                await inside.execute(statement)
        finally:
            await inside.close()

    async def _connect(self, database: str | None = None) -> Any:
        url = await asyncio.to_thread(self._server.url, database)
        try:
            with own_connections():
                return await cast("Any", asyncpg).connect(url)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            msg = (
                f"The server of the tests ({self._server.origin}) takes no connection: "
                f"{type(error).__name__}: {error}. Start it, or mend its URL"
            )
            raise DatabaseUnavailableError(msg) from error

    async def _strategy(self) -> str:
        # Copied as files: faster for a database of tests than by way of the log. 14 has no choice.
        version = await self.value("SELECT current_setting('server_version_num')::int")
        return " STRATEGY file_copy" if version >= 150000 else ""

    async def _unlock_template(self, name: str) -> None:
        await self.execute("SELECT pg_advisory_unlock($1, hashtext($2))", -_FAMILY, name)


_ROLE = "SELECT oid FROM pg_roles WHERE rolname = current_user"
_OF_RUNS = (
    "SELECT datname FROM pg_database WHERE datname LIKE 'stillroom\\_run\\_%' "
    "AND pg_has_role(datdba, 'USAGE') "  # another role's are dropped by its own runs
    "AND shobj_description(oid, 'pg_database') IS NULL"
)
_PREPARED = (
    "SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts "
    "WHERE database = current_database()"
)
_TEMPLATES = "SELECT datname FROM pg_database WHERE datname LIKE 'stillroom\\_template\\_%'"
_USED = "last used by tests on "
_COMMENT = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1"
_UNUSED = (
    f"{_TEMPLATES} AND pg_has_role(datdba, 'USAGE') "
    f"AND substring(shobj_description(oid, 'pg_database') FROM '^{_USED}(.*)$')::date "
    "< current_date - 30"
)
"""Templates of the role that no run has used for 30 days."""
