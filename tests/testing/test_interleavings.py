"""Any sequence of statements of several connections has the outcome of PostgreSQL itself."""

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillroom.testing.sandbox import Sandbox
from stillroom.testing.wire.transport import AnyLoop
from tests.testing.conftest import RunningSandbox

READS = [
    "SELECT id, name FROM author ORDER BY id",
    "SHOW work_mem",
    "SHOW transaction_isolation",
    "SELECT current_setting('transaction_read_only')",
    "SELECT 1 / 0",
    "SELECT a FROM scratch",
    "FETCH 1 FROM here",
    "DECLARE here CURSOR FOR SELECT name FROM author ORDER BY id",
    "CLOSE here",
    "SELECT pg_try_advisory_xact_lock(7)",
    "SELECT pg_try_advisory_lock(8)",
    "SELECT pg_advisory_unlock(8)",
]
WRITES = [
    "INSERT INTO author (name) VALUES ('a') RETURNING id",
    "INSERT INTO author (name) VALUES ('b') RETURNING id",
    "UPDATE author SET name = name || '!' RETURNING name",
    "DELETE FROM author WHERE name LIKE 'a%' RETURNING name",
    "INSERT INTO book (title, author_id) VALUES ('orphan', 99)",
    "SELECT write_author('c')",
    "SET CONSTRAINTS ALL IMMEDIATE",
    "CREATE TEMP TABLE scratch AS SELECT 1 AS a",
    "CREATE TEMP TABLE scratch (a int) ON COMMIT DROP",
    "DROP TABLE scratch",
]
CONTROLS = [
    *(["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT x", "ROLLBACK TO x"] * 2),
    "BEGIN READ ONLY",
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    "SAVEPOINT y",
    "ROLLBACK TO y",
    "RELEASE x",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "SET work_mem = '8MB'",
    "SET LOCAL work_mem = '9MB'",
    "RESET work_mem",
    "SET TRANSACTION READ ONLY",
    "SET default_transaction_read_only = on",
    "SET default_transaction_read_only = off",
]

STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(CONTROLS) | st.sampled_from(READS) | st.sampled_from(WRITES),
    ),
    min_size=4,
    max_size=16,
)
REFUSED = "SR001"


@dataclass(frozen=True)
class Outcome:
    """What a statement has come to: its rows or its SQLSTATE, and the transaction after it."""

    step: tuple[int, str]
    rows: list[tuple[Any, ...]] | None
    sqlstate: str
    is_in_transaction: bool


@settings(
    max_examples=40,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_a_sandbox_tells_what_postgresql_tells(
    plain_url: str, running_sandbox: RunningSandbox, sandbox: Sandbox, steps: list[tuple[int, str]]
) -> None:
    """Statement by statement, until the sandbox refuses one."""
    wire = AnyLoop(running_sandbox.loop, sandbox.accept)
    there = {"host": "/wire", "user": "wire", "password": "-", "database": "wire", "loop": wire}
    running_sandbox.stand_at(repr(steps))
    asyncio.run(empty(plain_url))
    expected = asyncio.run(run(steps, {"dsn": plain_url}))
    found = asyncio.run(run(steps, there))

    ends = next((n for n, it in enumerate(found) if it.sqlstate == REFUSED), len(found))
    assert found[:ends] == expected[:ends]


async def run(steps: list[tuple[int, str]], arguments: dict[str, Any]) -> list[Outcome]:
    """Run the steps on three connections, and look at what is left by a fourth one."""
    connections = [await cast("Any", asyncpg).connect(**arguments) for _ in range(4)]
    outcomes = [await take(connections, step) for step in without_waits(steps)]
    for connection in connections[:3]:
        await connection.close()
    last = (READS[0], "SELECT title FROM book", "SELECT pg_advisory_lock(8)")
    outcomes += [await take(connections, (3, sql)) for sql in last]
    await connections[3].close()
    return outcomes


async def take(connections: list[Any], step: tuple[int, str]) -> Outcome:
    """Run one step."""
    connection, sql = connections[step[0]], step[1]
    rows, sqlstate = None, ""
    try:
        rows = [tuple(row) for row in await connection.fetch(sql)]
    except asyncpg.PostgresError as error:
        sqlstate = str(getattr(error, "sqlstate", None))
    return Outcome(step, rows, sqlstate, connection.is_in_transaction())


def without_waits(steps: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Leave out the writes that would wait for another connection's."""
    kept: list[tuple[int, str]] = []
    begun: set[int] = set()
    writer: int | None = None
    for number, sql in steps:
        if sql in WRITES and writer not in (None, number):
            continue
        kept.append((number, sql))
        if sql.startswith("BEGIN"):
            begun.add(number)
        elif sql.startswith(("COMMIT", "ROLLBACK")) and " TO " not in sql:
            writer = None if writer == number else writer
            if "CHAIN" not in sql:
                begun.discard(number)
        elif sql in WRITES and number in begun:
            writer = number
    return kept


async def empty(url: str) -> None:
    """Make a plain database what it was."""
    connection = await cast("Any", asyncpg).connect(url)
    await connection.execute("TRUNCATE author, book RESTART IDENTITY")
    await connection.close()
