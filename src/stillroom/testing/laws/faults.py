"""Faults below an application: triggers that hold, count or fail what it writes and commits."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self, cast

import asyncpg

from stillroom.testing.engines.drivers import own_connections


class Point(Enum):
    """Where a request is held up or fails."""

    WRITE = "statement that writes"
    COMMIT = "COMMIT"


class Fault(Enum):
    """What happens there."""

    HOLD = """IF {number} = 0 OR nextval('stillroom_laws.counted') = {number} THEN
        PERFORM pg_advisory_xact_lock_shared({lock});
    END IF;"""
    COUNT = "PERFORM nextval('stillroom_laws.counted');"
    FAIL = """IF {number} = 0 OR nextval('stillroom_laws.counted') = {number} THEN
        RAISE EXCEPTION 'a fault that a law of stillroom.testing makes' USING ERRCODE = '58030';
    END IF;"""


@dataclass(frozen=True)
class State:
    """The versions of all rows, by table."""

    versions: dict[str, frozenset[str]]

    def since(self, before: "State") -> dict[str, tuple[int, int]]:
        """Return how many versions have come and gone since, of the tables where some have."""
        pairs = {name: (before.versions.get(name, _NONE), it) for name, it in self.versions.items()}
        return {name: (len(b - a), len(a - b)) for name, (a, b) in pairs.items() if a != b}


class Faults:
    """Make faults in a database, and see what is there."""

    def __init__(self, control: Any, holder: Any, locker: Any) -> None:
        self._control = control
        self._holder = holder
        self._locker = locker
        self._tables: list[str] = []

    @classmethod
    @asynccontextmanager
    async def below(cls, url: str) -> AsyncGenerator[Self]:
        """Put triggers, which do nothing yet, on all tables of a database."""
        with own_connections():
            connections = [await _connect(url) for _ in range(3)]
        try:
            faults = cls(*connections)
            await faults._prepare()
            yield faults
        finally:
            for connection in connections:
                connection.terminate()

    @asynccontextmanager
    async def at(self, point: Point, fault: Fault, number: int = 0) -> AsyncGenerator[None]:
        """Let the fault happen at a point: at each one, or at the one of this number."""
        await self._control.execute("ALTER SEQUENCE stillroom_laws.counted RESTART")
        if fault is Fault.HOLD:
            await self._holder.execute(f"SELECT pg_advisory_lock({_LOCK})")
        await self._set(point, fault.value.format(lock=_LOCK, number=number))
        try:
            yield
        finally:
            await self._set(point, "")
            if fault is Fault.HOLD:
                await self._holder.execute(f"SELECT pg_advisory_unlock({_LOCK})")

    async def wait_until_held(self, or_else: asyncio.Event) -> None:
        """Wait until a request is held up at a point, or the other thing has happened."""
        await _until(lambda: self._is_anybody(_HELD), or_else)

    async def count(self) -> int:
        """Return how often a point was reached."""
        query = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM stillroom_laws.counted"
        return cast("int", await self._control.fetchval(query))

    async def state(self) -> State:
        """Return what is committed."""
        rows: dict[str, frozenset[str]] = {}
        for table in self._tables:
            found = await self._control.fetch(f"SELECT ctid::text || xmin::text FROM ONLY {table}")  # noqa: S608
            rows[table] = frozenset(row[0] for row in found)
        return State(rows)

    async def wait_until_quiet(self) -> list[str]:
        """Wait until the application has no transaction open; return those that stay."""
        gave_up = asyncio.Event()
        timer = asyncio.get_running_loop().call_later(_PATIENCE, gave_up.set)
        await _until(self._is_quiet, gave_up)
        timer.cancel()
        return [str(row[0]) for row in await self._control.fetch(_OPEN)]

    async def lock_all_tables(self) -> None:
        """Lock all tables when who has written in them has ended, in a transaction that stays."""
        await self._locker.execute("BEGIN")
        await self._locker.execute(f"LOCK TABLE {', '.join(self._tables)}")

    async def wait_until_queued(self, locked: "asyncio.Future[None]") -> None:
        """Wait until the locks wait for a request, or are there."""
        is_there = asyncio.Event()
        locked.add_done_callback(lambda _: is_there.set())
        await _until(lambda: self._is_anybody(_QUEUED), is_there)

    async def refuse_who_waits(self, locked: "asyncio.Future[None]", until: asyncio.Event) -> None:
        """Cancel what the application wants of a locked table, until it answers; then unlock."""

        async def cancel() -> bool:
            await self._control.fetch(_CANCEL)
            return False

        await locked
        await _until(cancel, until)
        await self._locker.execute("ROLLBACK")

    async def note_who_may_write(self) -> None:
        """Let each table become a view that notes whether its reader could write."""
        await self._control.execute(_NOTE)
        for table in self._tables:
            schema, name = await self._control.fetchrow(_NAMES, table)
            names = {"table": table, "schema": schema, "hidden": f'"{name} of the laws"'}
            await self._control.execute(_RENAME.format(**names))
            await self._control.execute(_VIEW.format(**names))
        await self._control.execute("ALTER SEQUENCE stillroom_laws.counted RESTART")

    async def who_may_write(self) -> tuple[bool, bool]:
        """Say whether somebody has read since, and whether they could have written."""
        return await self._is_anybody(_READER), await self.count() > 0

    async def _prepare(self) -> None:
        await self._control.execute(_PREPARE)
        for point in Point:
            await self._set(point, "")
        for table, is_parent in await self._control.fetch(_TABLES):
            await self._control.execute(_TRIGGER_AT_WRITE.format(table=table))
            if not is_parent:
                await self._control.execute(_TRIGGER_AT_COMMIT.format(table=table))
                self._tables.append(table)

    async def _set(self, point: Point, action: str) -> None:
        await self._control.execute(_FUNCTION.format(name=point.name.lower(), action=action))

    async def _is_anybody(self, query: str) -> bool:
        return bool(await self._control.fetchval(query))

    async def _is_quiet(self) -> bool:
        return not await self._control.fetch(_OPEN)


async def _connect(url: str) -> Any:
    module: Any = asyncpg
    return await module.connect(url, server_settings={"application_name": _NAME})


async def _until(condition: Callable[[], Awaitable[bool]], or_else: asyncio.Event) -> None:
    while not or_else.is_set() and not await condition():
        with suppress(TimeoutError):
            await asyncio.wait_for(or_else.wait(), _BETWEEN)


_NONE: frozenset[str] = frozenset()
_NAME = "stillroom laws"
_LOCK = 7_463_511
_NOTED = 7_463_512
_BETWEEN = 0.005
_PATIENCE = 5.0

_PREPARE = """
CREATE SCHEMA stillroom_laws;
GRANT USAGE ON SCHEMA stillroom_laws TO PUBLIC;
CREATE SEQUENCE stillroom_laws.counted;
GRANT ALL ON SEQUENCE stillroom_laws.counted TO PUBLIC;
"""
_TABLES = """
SELECT format('%I.%I', nspname, relname), relkind = 'p'
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'p') AND relpersistence <> 't'
AND nspname NOT IN ('pg_catalog', 'information_schema', 'stillroom_laws')
AND relname <> 'alembic_version'
ORDER BY 1
"""
_FUNCTION = """
CREATE OR REPLACE FUNCTION stillroom_laws.at_{name}() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN {action} RETURN NULL; END $$
"""
_TRIGGER_AT_WRITE = """
CREATE TRIGGER stillroom_laws_write BEFORE INSERT OR UPDATE OR DELETE ON {table}
FOR EACH STATEMENT EXECUTE FUNCTION stillroom_laws.at_write()
"""
_TRIGGER_AT_COMMIT = """
CREATE CONSTRAINT TRIGGER stillroom_laws_commit AFTER INSERT OR UPDATE OR DELETE ON {table}
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION stillroom_laws.at_commit()
"""

# A session-level lock can be taken in a READ ONLY transaction, a value of a sequence cannot.
_NOTE = f"""
CREATE FUNCTION stillroom_laws.note() RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$ BEGIN
    PERFORM pg_advisory_lock_shared({_NOTED});
    IF current_setting('transaction_read_only') = 'off' THEN
        PERFORM nextval('stillroom_laws.counted');
    END IF;
    RETURN true;
END $$
"""
_NAMES = """
SELECT quote_ident(nspname), replace(relname, '"', '""')
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE c.oid = $1::text::regclass
"""
_RENAME = "ALTER TABLE {table} RENAME TO {hidden}"
_VIEW = """CREATE VIEW {table} AS SELECT * FROM {schema}.{hidden} WHERE stillroom_laws.note()"""
_HELD = (
    "SELECT EXISTS (SELECT FROM pg_locks"  # noqa: S608
    f" WHERE locktype = 'advisory' AND objid = {_LOCK} AND NOT granted)"
)
_READER = f"SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = {_NOTED})"  # noqa: S608
_OF_THE_LAWS = (
    f"SELECT pid FROM pg_stat_activity WHERE application_name = '{_NAME}'"  # noqa: S608
    " AND datname = current_database()"
)
_QUEUED = (
    "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'relation' AND NOT granted"  # noqa: S608
    f" AND pid IN ({_OF_THE_LAWS}))"
)
_CANCEL = (
    "SELECT pg_cancel_backend(pid) FROM pg_locks WHERE locktype = 'relation' AND NOT granted"  # noqa: S608
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    f" AND pid NOT IN ({_OF_THE_LAWS})"
)
_OPEN = (
    "SELECT query FROM pg_stat_activity WHERE datname = current_database()"  # noqa: S608
    f" AND application_name <> '{_NAME}' AND backend_type = 'client backend'"
    " AND (state <> 'idle' OR backend_xid IS NOT NULL)"
)
