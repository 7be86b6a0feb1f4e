"""Behind PgBouncer in transaction mode, where a session is nobody's, all laws hold."""

import enum
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import BaseModel
from sqlalchemy import Enum, Integer, String, column, func, make_url, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom.engine import EngineSettings
from stillroom.engine.pooler import goes_through_pooler
from stillroom.errors import ConfigurationError, DatabaseUnavailableError
from stillroom.json import JSONInsert, JSONRow, JSONSelect
from stillroom.manager import DatabaseSessionManager
from stillroom.model import Model
from stillroom.postgres import Cluster
from tests.commands import Command
from tests.conftest import DRIVERS, NewDatabase
from tests.mutations import ROOT
from tests.pgbouncer import DEBIAN, KINDS, LATER, SESSIONS, PgBouncer, run_pgbouncer
from tests.requests import Load, load
from tests.test_json_inserts import alone

MOST_STATEMENTS = 20
"""How many prepared statements a session of PostgreSQL may have."""


class Base(Model, DeclarativeBase):
    """The base of the tables of these tests."""


class Colour(enum.Enum):
    """A type of the database's own, which asyncpg has to ask for."""

    RED = "red"
    GREEN = "green"


class Jar(Base):
    """A row with a name and a colour."""

    __tablename__ = "jars"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    colour: Mapped[Colour] = mapped_column(Enum(Colour), default=Colour.RED)


class JarSchema(BaseModel):
    """Show a jar."""

    id: int
    name: str


ONE_JAR = JSONRow(Jar, JarSchema)
EVERY_JAR = JSONSelect(select(Jar).order_by(Jar.id), JarSchema)
NEW_JAR = JSONInsert(Jar, JarSchema)


@dataclass(frozen=True)
class Way:
    """A database behind a PgBouncer: two URLs, with and without it between."""

    pgbouncer: PgBouncer
    through: str
    direct: str


@pytest.fixture(scope="module", params=KINDS)
def pgbouncer(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[PgBouncer]:
    """Run a PgBouncer of each kind in turn, before the run's PostgreSQL."""
    with run_pgbouncer(request.param, cluster.url("postgres")) as pgbouncer:
        yield pgbouncer


@pytest.fixture(params=DRIVERS)
def way(request: pytest.FixtureRequest, pgbouncer: PgBouncer, new_database: NewDatabase) -> Way:
    """Give an empty database behind PgBouncer, for each driver."""
    direct = new_database()
    return Way(pgbouncer, pgbouncer.url(direct, request.param), direct)


@pytest.fixture(params=[None, True], ids=["found out", "declared"])
async def manager(
    request: pytest.FixtureRequest, way: Way
) -> AsyncIterator[DatabaseSessionManager]:
    """Give a manager of it that was told of PgBouncer, and one that was not, with the tables."""
    manager = DatabaseSessionManager(Base.metadata)
    settings = EngineSettings(
        pgbouncer=request.param, statement_timeout=1.5, lock_timeout=0.7, ping_after=0
    )
    manager.init(way.through, settings=settings)
    async with manager.connect() as connection:
        await manager.create_all(connection)
    yield manager
    await manager.close()


HIDING = {
    "ignore_startup_parameters": "options, statement_timeout, lock_timeout,"
    " client_connection_check_interval, default_transaction_read_only"
}
"""What lets PgBouncer pass over what it cannot keep, and say nothing."""

SETTINGS = text(
    "SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),"
    " current_setting('transaction_read_only')"
)


async def test_each_transaction_says_what_a_session_cannot_keep(
    manager: DatabaseSessionManager,
) -> None:
    """The timeouts hold in writes and reads, also after a commit, and a read is read-only."""
    async with manager.session() as session:
        for _ in range(2):
            assert (await session.execute(SETTINGS)).one() == ("1500ms", "700ms", "off")
            await session.commit()
    for _ in range(2):
        async with manager.session(read_only=True) as session:
            assert (await session.execute(SETTINGS)).one() == ("1500ms", "700ms", "on")
            await session.rollback()
            assert (await session.execute(SETTINGS)).one() == ("1500ms", "700ms", "on")
    assert goes_through_pooler(manager.engine.sync_engine.dialect)


WRITES = [
    "CREATE TABLE others (id integer)",
    "SELECT 1 INTO others",
    "WITH it AS (INSERT INTO jars (name, colour) VALUES ('a', 'RED') RETURNING 1) TABLE it",
    "SELECT nextval('jars_id_seq')",
]


@pytest.mark.parametrize("statement", WRITES)
async def test_no_form_of_a_read_can_write(manager: DatabaseSessionManager, statement: str) -> None:
    """PostgreSQL refuses, whatever came before, whatever level was asked for."""
    before: list[Any] = [[], [select(func.lower("A"))], [text("SHOW work_mem")]]
    for first in before:
        for level in (
            {},
            {"isolation_level": "REPEATABLE READ"},
            {"isolation_level": "AUTOCOMMIT"},
        ):
            async with manager.session(read_only=True) as session:
                await session.connection(execution_options=level)
                for one in first:
                    await session.execute(one)
                with pytest.raises(DBAPIError, match="read-only transaction"):
                    await session.execute(text(statement))


async def test_a_read_session_cannot_leave_its_transaction_and_write(
    manager: DatabaseSessionManager,
) -> None:
    """A COMMIT that is written as SQL ends what held it to reading: it is noticed."""
    async with manager.session(read_only=True) as session:
        await session.execute(text("COMMIT"))
        with pytest.raises((ConfigurationError, DBAPIError), match=r"ended by|read-only"):
            await session.execute(text("CREATE TABLE others (id integer)"))


async def test_a_lone_read_through_it_is_no_exception(
    manager: DatabaseSessionManager, way: Way
) -> None:
    """What is read past SQLAlchemy's Connection is read in a READ ONLY transaction, too."""
    with psycopg.connect(way.direct) as other:
        other.execute(
            "CREATE FUNCTION noted(jars) RETURNS text LANGUAGE sql"
            " AS 'INSERT INTO jars (name, colour) VALUES ($1.name, $1.colour) RETURNING name';"
            "INSERT INTO jars (name, colour) VALUES ('a', 'RED');"
            "CREATE VIEW hidden AS SELECT id, noted(jars) AS name FROM jars"
        )
    lines = JSONSelect(
        select(column("id", Integer), column("name", String)).select_from(text("hidden")), JarSchema
    )
    async with manager.session(read_only=True) as session:
        await session.execute(select(func.lower("A")))  # the first connection has told
    async with manager.session(read_only=True) as session:
        with pytest.raises(DBAPIError, match="read-only transaction"):
            await lines.all(session)


async def test_all_ways_to_read_and_write_go_through(manager: DatabaseSessionManager) -> None:
    """JSON, COPY in and out, cursors, types of the database's own, savepoints."""
    async with manager.begin() as session:
        assert await Jar.create_many(session, ({"name": f"jar-{n}"} for n in range(3000))) == 3000
        async with session.begin_nested():
            await Jar.create(session, name="green", colour=Colour.GREEN)
    async with manager.session() as session:
        made = await session.commit_with(*alone(NEW_JAR, name="alone"))
        assert JarSchema.model_validate_json(made).name == "alone"
    async with manager.session(read_only=True) as session:
        assert await ONE_JAR.get(session, 1) == b'{"id":1,"name":"jar-0"}'
        parts = [part async for part in EVERY_JAR.in_parts(session, 100)]
        assert b"".join(part if isinstance(part, bytes) else b"" for part in parts).count(b"id") > 0
        rows = await session.stream_scalars(select(Jar.colour).order_by(Jar.id.desc()).limit(2))
        assert [row async for row in rows] == [Colour.RED, Colour.GREEN]
        assert await session.scalar(select(func.count()).select_from(Jar)) == 3002


async def test_a_lone_insert_has_a_timeout_too(manager: DatabaseSessionManager, way: Way) -> None:
    """By itself, without a transaction, it would wait for a lock for ever."""
    with psycopg.connect(way.direct) as other:
        other.execute("LOCK TABLE jars")
        async with manager.session() as session:
            with pytest.raises(DBAPIError, match="lock timeout"):
                await session.commit_with(*alone(NEW_JAR, name="alone"))


async def test_a_restart_of_pgbouncer_fails_nobody(
    manager: DatabaseSessionManager, way: Way
) -> None:
    """A connection that lay idle is pinged, as one of PostgreSQL's is."""
    for _ in range(2):
        async with manager.session(read_only=True) as session:
            assert await session.scalar(select(func.lower("A"))) == "a"
        way.pgbouncer.restart()


async def test_a_change_of_the_schema_fails_one_request_at_most(
    manager: DatabaseSessionManager, way: Way
) -> None:
    """PgBouncer would give the stale plan of a statement to each that prepares it again."""
    query = text("SELECT id FROM jars")

    async def fails() -> bool:
        try:
            async with manager.session(read_only=True) as session:
                await session.execute(query)
        except DBAPIError:
            return True
        return False

    assert [await fails() for _ in range(8)] == [False] * 8  # psycopg prepares at the sixth
    with psycopg.connect(way.direct) as other:
        other.execute("ALTER TABLE jars ALTER id TYPE bigint")
    assert sum([await fails() for _ in range(8)]) <= 1


async def test_what_postgresql_has_is_not_the_limit_of_the_pools(way: Way) -> None:
    """PgBouncer lets in more than max_connections, and says nobody how many."""
    manager = DatabaseSessionManager()
    manager.init(way.through)
    await manager.share(5000)
    assert manager.settings.pool_size == 10
    await manager.close()


def test_migrations_do_not_go_through(cluster: Cluster, database_url: str) -> None:
    """A lock of the session would hold nothing, so they are refused before they begin."""
    with run_pgbouncer(DEBIAN, cluster.url("postgres")) as pgbouncer:
        through = pgbouncer.url(database_url)
        refused = migrate(DB_CONFIG=through)
        assert refused.returncode != 0
        assert "leads to PgBouncer" in refused.stderr
        assert "DB_DIRECT" in refused.stderr
        assert "Traceback" not in refused.stderr

        assert migrate(DB_CONFIG=through, DB_DIRECT=database_url).returncode == 0
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (0,)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_one_that_hides_is_found_out(cluster: Cluster, driver: str) -> None:
    """Where it passes over what it cannot keep, the key for cancelling gives it away."""
    direct = cluster.url("postgres")
    with run_pgbouncer(DEBIAN, direct, HIDING) as pgbouncer:
        manager = DatabaseSessionManager()
        manager.init(pgbouncer.url(direct, driver))
        async with manager.session() as session:
            assert (await session.execute(SETTINGS)).one() == ("10s", "0", "off")
        async with manager.session(read_only=True) as session:
            assert (await session.execute(SETTINGS)).one() == ("10s", "0", "on")
        await manager.close()


def lead(name: Path, folder: Path) -> None:
    """Let a name lead to the folder of another socket."""
    name.unlink(missing_ok=True)
    name.symlink_to(folder)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_one_that_comes_later_is_found_out(
    database_url: str, driver: str, tmp_path: Path
) -> None:
    """A name that led to PostgreSQL may lead to PgBouncer tomorrow; a refusal says so."""
    await lead_to_pgbouncer(database_url, driver, tmp_path / "name", {})


@pytest.mark.parametrize("driver", DRIVERS)
async def test_one_that_comes_later_and_hides_is_found_out_by_reads(
    database_url: str, driver: str, tmp_path: Path
) -> None:
    """PostgreSQL says of each connection whether it is read-only, so none that should be is not."""
    await lead_to_pgbouncer(database_url, driver, tmp_path / "name", HIDING)


async def lead_to_pgbouncer(
    database_url: str, driver: str, name: Path, settings: Mapping[str, str]
) -> None:
    """Read from PostgreSQL, then by the same URL from a PgBouncer; the reads are read-only."""
    server = make_url(database_url)
    lead(name, Path(str(server.query["host"])))
    manager = DatabaseSessionManager()
    manager.init(f"postgresql+{driver}://postgres@/{server.database}?host={name}&port=5432")
    for pooler in ("", DEBIAN):
        with ExitStack() as stack:
            if pooler:
                pgbouncer = stack.enter_context(run_pgbouncer(pooler, database_url, settings))
                lead(name, pgbouncer.folder)
                await manager.read_engine.dispose()
            async with manager.session(read_only=True) as session:
                assert (await session.execute(SETTINGS)).one() == ("10s", "0", "on")
            assert goes_through_pooler(manager.read_engine.sync_engine.dialect) == bool(pooler)
            await manager.read_engine.dispose()
    await manager.close()


async def test_one_that_is_declared_and_not_there_costs_nothing_but_time(driver_url: str) -> None:
    """What is right through it is right without it."""
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(driver_url, settings=EngineSettings(pgbouncer=True))
    async with manager.connect() as connection:
        await manager.create_all(connection)
    async with manager.session() as session:
        await session.commit_with(*alone(NEW_JAR, name="alone"))
        assert (await session.execute(SETTINGS)).one() == ("10s", "0", "off")
    async with manager.session(read_only=True) as session:
        assert (await session.execute(SETTINGS)).one() == ("10s", "0", "on")
    await manager.close()


async def test_one_that_is_denied_is_told_of(way: Way) -> None:
    """With DB_PGBOUNCER=0 its refusal is the answer, and nothing else is tried."""
    manager = DatabaseSessionManager()
    manager.init(way.through, settings=EngineSettings(pgbouncer=False))
    with pytest.raises(DatabaseUnavailableError, match="unsupported startup parameter"):
        async with manager.connect():
            pass
    await manager.close()


@pytest.mark.parametrize("requests", [200, pytest.param(2000, marks=pytest.mark.full)])
@pytest.mark.parametrize("kind", [DEBIAN, LATER])
async def test_requests_at_once_meet_no_error_and_leave_no_statements(
    kind: str, requests: int, new_database: NewDatabase, tmp_path: Path, capsys: Any
) -> None:
    """Mixed requests of 12 clients of the service, with more clients than sessions."""
    direct, folder = new_database(), tmp_path / "service"
    folder.symlink_to(ROOT / "service")  # what the command says stands beside
    assert migrate(DB_CONFIG=direct).returncode == 0
    with run_pgbouncer(kind, direct) as pgbouncer:
        loads: dict[str, Load] = {}
        for way, url in (("direct", direct), ("through", pgbouncer.url(direct))):
            with capsys.disabled():
                loads[way] = await serve_and_load(folder, url, requests=requests, clients=12)
            assert loads[way].wrong == []
        most = max(statements(pgbouncer, direct).values())
        assert most <= MOST_STATEMENTS
        with capsys.disabled():
            ratio = loads["through"].rate / loads["direct"].rate
            print(  # noqa: T201  (a figure that a reader asks for)
                f"\n{kind}: {loads['through'].rate:.0f} requests/s, {loads['direct'].rate:.0f} "
                f"direct ({ratio:.0%}), at most {most} prepared statements a session"
            )


def migrate(**environ: str) -> "subprocess.CompletedProcess[str]":
    """Run the `alembic` command of the service."""
    return subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT / "service",
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


async def serve_and_load(folder: Path, url: str, *, requests: int, clients: int) -> Load:
    """Serve the service in a folder on a database, and load it."""
    command = Command(folder, "serve", "--port", "0", DB_CONFIG=url)
    try:
        port = int(command.says(r"http://127\.0\.0\.1:(\d+)")[1])
        return await load(port, requests=requests, clients=clients)
    finally:
        command.process.terminate()
        command.process.wait()


def statements(pgbouncer: PgBouncer, direct: str) -> dict[int, int]:
    """Return how many prepared statements each session behind PgBouncer has, by its pid."""
    found: dict[int, int] = {}
    count = "SELECT pg_backend_pid(), count(*) FROM pg_prepared_statements"
    url = pgbouncer.url(direct).replace("+asyncpg", "")
    held = [psycopg.connect(url, prepare_threshold=None) for _ in range(SESSIONS)]
    for connection in held:  # none is given back before all have one
        row = connection.execute(count).fetchone()
        assert row is not None
        found[row[0]] = row[1]
    for connection in held:
        connection.close()
    return found
