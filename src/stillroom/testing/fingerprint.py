"""The fingerprint of a database: a count and a digest for all that it holds.

As a program this is the other end of a canary (`canary.py`), in a process of its own. It takes the
URL of a database from its first line of input and takes a fingerprint; it answers each further line
with a line of JSON that says what has changed since.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import asyncpg

AT_REST = "at rest"
"""The line that asks what has changed while no transaction of the sandbox is open."""

WITHIN = "within a transaction"
"""The line that asks while one is: the values of its sequences, which all can see, are its own."""

LOCKING = "within a transaction, with locks"
"""The line that asks while a wider scope than a test holds advisory locks, besides."""


@dataclass
class Fingerprint:
    """What a database held in one snapshot."""

    digests: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    """By what it is, in words: how much there is, and a word that changes with any of it."""
    locked: list[str] = field(default_factory=list[str])
    """What an open transaction has locked, so that nobody else can read it."""
    passing: list[str] = field(default_factory=list[str])
    """What belongs to a scope that is open: the values of sequences, advisory locks."""


@dataclass
class Finding:
    """What has changed in a database, a sentence each, and what could not be read."""

    changed: list[str] = field(default_factory=list[str])
    unread: list[str] = field(default_factory=list[str])


def compare(before: Fingerprint, after: Fingerprint) -> list[str]:
    """Say what has changed, a line each; what was not read afterwards is left out."""
    changed: list[str] = []
    unread = {*after.locked, *after.passing}
    for name in sorted((before.digests.keys() | after.digests.keys()) - unread):
        then, now = before.digests.get(name, _NOTHING), after.digests.get(name, _NOTHING)
        if then != now:
            same = ", with another content" if then[0] == now[0] else ""
            changed.append(f"{name}: {then[0]} before, {now[0]} now{same}")
    return changed


async def take(connection: Any, state: str = AT_REST) -> Fingerprint:
    """Read the rows of all tables, those of the catalogue among them, and what no snapshot holds.

    That is the prepared transactions and, as far as the state lets them be compared, the advisory
    locks and the sequences.
    """
    fingerprint = Fingerprint()
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for name, table, is_locked in await connection.fetch(_TABLES):
            if is_locked:
                fingerprint.locked.append(name)
            else:
                digest = await connection.fetchrow(_DIGEST.format(row=_VERSION, source=table))
                fingerprint.digests[name] = tuple(digest)
        for name, (row, source) in _BESIDE.items():
            digest = await connection.fetchrow(_DIGEST.format(row=row, source=source))
            fingerprint.digests[name] = tuple(digest)
        if state == LOCKING:
            fingerprint.passing.append(_LOCKS)
        for name, value in await connection.fetch(_SEQUENCES, state == AT_REST):
            if state == AT_REST:
                fingerprint.digests[name] = (value or 0, "")
            else:
                fingerprint.passing.append(name)
    return fingerprint


def main() -> None:
    """Answer the lines of the input until it ends; an error is an answer too."""
    try:
        asyncio.run(_answer())
    except Exception as error:  # noqa: BLE001  (the other process raises it)
        _say({"error": f"{type(error).__name__}: {error}"})


async def _answer() -> None:
    connection = await cast("Any", asyncpg).connect(
        await _next_line(),
        server_settings={"application_name": "stillroom canary", "lock_timeout": "5s"},
    )
    before = await take(connection)
    _say(asdict(Finding()))
    while line := await _next_line():
        after = await _take_when_quiet(connection, before, line)
        _say(asdict(Finding(compare(before, after), after.locked)))
    await connection.close()


async def _take_when_quiet(connection: Any, before: Fingerprint, state: str) -> Fingerprint:
    """Wait for the end of connections that were closed: until then they hold their locks."""
    deadline = time.monotonic() + _ENDING_SECONDS
    while True:
        after = await take(connection, state)
        is_quiet = state == LOCKING or before.digests[_LOCKS] == after.digests[_LOCKS]
        if is_quiet or time.monotonic() > deadline:
            return after
        await asyncio.sleep(0.01)


async def _next_line() -> str:
    line: str = await asyncio.to_thread(sys.stdin.readline)
    return line.strip()


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


_NOTHING = (0, "")
_ENDING_SECONDS = 5.0
_LOCKS = "advisory locks"

_DIGEST = "SELECT count(*), coalesce(sum(hashtextextended({row}, 0)), 0)::text FROM {source}"

# Who writes a row makes a new version of it, in another place and by another transaction. That is
# read much faster than what is in the rows, and leaves out what no transaction changes: the counts
# of pg_class, which VACUUM writes over the old ones.
_VERSION = "ctid::text || ' ' || xmin::text"
_TABLES = r"""
SELECT CASE nspname WHEN 'pg_catalog' THEN 'the catalogue ' || relname
                    ELSE format('the rows of %I.%I', nspname, relname) END,
       format('ONLY %I.%I', nspname, relname),
       EXISTS (SELECT FROM pg_locks l
               WHERE l.mode = 'AccessExclusiveLock'
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND (l.relation = c.oid
                    OR l.relation IN (SELECT indexrelid FROM pg_index WHERE indrelid = c.oid)))
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind IN ('r', 'm') AND relispopulated AND relpersistence <> 't' AND NOT relisshared
AND nspname <> 'information_schema' AND has_table_privilege(c.oid, 'SELECT')
AND c.oid NOT IN (SELECT oid FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace
                  AND relname IN ('pg_statistic', 'pg_statistic_ext_data'))
"""
_SEQUENCES = """
SELECT format('the sequence %I.%I', nspname, relname),
       CASE WHEN $1 THEN pg_sequence_last_value(c.oid) END
FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
WHERE relkind = 'S' AND relpersistence <> 't'
"""
_OF_THIS_DATABASE = "(SELECT oid FROM pg_database WHERE datname = current_database())"
_BESIDE = {
    "roles of the server": ("r::text", "pg_roles AS r"),
    "members of its roles": ("m::text", "pg_auth_members AS m"),
    "settings of roles and databases": (
        "s::text",
        f"pg_db_role_setting AS s WHERE setdatabase IN (0, {_OF_THIS_DATABASE})",
    ),
    "prepared transactions": (
        "gid",
        "pg_prepared_xacts WHERE database = current_database()",
    ),
    _LOCKS: (
        "format('%s %s %s', classid, objid, objsubid)",
        f"pg_locks WHERE locktype = 'advisory' AND database = {_OF_THIS_DATABASE}",
    ),
}


if __name__ == "__main__":
    main()
