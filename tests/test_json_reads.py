"""JSON by the sessions of a manager: as cheap as can be, and within what the session has done."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from enum import Enum as PyEnum
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from pydantic import BaseModel, TypeAdapter, create_model
from sqlalchemy import ARRAY, Engine, Enum, Integer, String, bindparam, event, func, select
from sqlalchemy.exc import DBAPIError, InvalidRequestError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from stillroom.engine.alone import can_read_alone
from stillroom.engine.pool import ConnectionPool
from stillroom.json import JSONRow, JSONSelect
from stillroom.manager import DatabaseSessionManager
from stillroom.model import Model
from stillroom.postgres import Cluster
from tests.conftest import DRIVERS
from tests.test_manager import cancel, nothing_left


class Base(Model, DeclarativeBase):
    """The base of the models."""


class Colour(PyEnum):
    """An enum whose names are stored."""

    RED = "red"
    BLUE = "blue"


class Jar(Base):
    """A row."""

    __tablename__ = "jars"

    id: Mapped[UUID] = mapped_column("jar_id", primary_key=True)
    colour: Mapped[Colour] = mapped_column(Enum(Colour))


class Lid(Base):
    """A row with a composite key, in an order of its own."""

    __tablename__ = "lids"

    shelf: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[str] = mapped_column(primary_key=True)


class JarView(BaseModel):
    """Show a jar."""

    id: UUID
    colour: Colour


class LidView(BaseModel):
    """Show a lid."""

    shelf: int
    place: str


ONE_JAR = JSONRow(Jar, JarView)
ONE_LID = JSONRow(Lid, LidView)
OF_COLOUR = JSONSelect(
    select(Jar).where(Jar.colour == bindparam("colour", type_=Jar.colour.type)), JarView
)
AMONG = JSONSelect(select(Jar).where(Jar.id.in_(bindparam("ids", expanding=True))), JarView)
JARS = TypeAdapter(list[JarView])

RED, BLUE = JarView(id=uuid4(), colour=Colour.RED), JarView(id=uuid4(), colour=Colour.BLUE)


@pytest.fixture
async def manager(driver_url: str) -> AsyncIterator[DatabaseSessionManager]:
    """Give a manager of a database with two jars, by each driver."""
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(driver_url)
    async with manager.connect() as connection:
        await manager.create_all(connection)
    async with manager.begin() as session:
        for jar in (RED, BLUE):
            await Jar.create(session, **jar.model_dump())
        await Lid.create(session, shelf=3, place="left")
    yield manager
    await manager.close()


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_row_is_found_by_its_key(manager: DatabaseSessionManager, read_only: bool) -> None:
    """As text or not; what is nobody's key finds nothing, and PostgreSQL is not asked."""
    async with manager.session(read_only=read_only) as session:
        for key in (RED.id, str(RED.id), RED.id.hex):
            found = await ONE_JAR.get(session, key)
            assert found is not None
            assert JarView.model_validate_json(found) == RED
        assert await ONE_JAR.get(session, uuid4()) is None
        assert await ONE_JAR.get(session, "no id") is None
        found = await ONE_LID.get(session, (3, "left"))
        assert found is not None
        assert LidView.model_validate_json(found) == LidView(shelf=3, place="left")
        assert await ONE_LID.get(session, (3, "right")) is None
        with pytest.raises(TypeError, match="has 2 columns, not 1"):
            await ONE_LID.get(session, 3)


async def test_values_are_taken_as_their_type_has_it(manager: DatabaseSessionManager) -> None:
    """An enum by its name; a list makes a statement of its length."""
    async with manager.session(read_only=True) as session:
        assert JARS.validate_json(await OF_COLOUR.all(session, colour=Colour.BLUE)) == [BLUE]
        assert JARS.validate_json(await AMONG.all(session, ids=[RED.id, uuid4()])) == [RED]
        assert JARS.validate_json(await AMONG.all(session, ids=[])) == []
        with pytest.raises(StatementError, match="colour"):
            await OF_COLOUR.all(session)


async def test_a_read_holds_no_connection(manager: DatabaseSessionManager) -> None:
    """It goes back at once; a session that has one already goes on with it."""
    pool: Any = manager.read_engine.pool
    async with manager.session(read_only=True) as session:
        assert await ONE_JAR.get(session, RED.id)
        assert (pool.checkedout(), session.in_transaction()) == (0, False)
        assert await session.get(Jar, RED.id)
        assert pool.checkedout() == 1
        assert await ONE_JAR.get(session, RED.id)
        assert pool.checkedout() == 1


async def test_a_write_session_reads_what_it_has_not_written_yet(
    manager: DatabaseSessionManager,
) -> None:
    """What was added is flushed, in the one transaction of the session."""
    new = uuid4()
    async with manager.session() as session:
        session.add(Jar(id=new, colour=Colour.RED))
        assert await ONE_JAR.get(session, new)
    async with manager.session(read_only=True) as session:
        assert await ONE_JAR.get(session, new) is None


EVERY_JAR = JSONSelect(Jar.every_row(), JarView)


async def test_json_needs_no_transaction(manager: DatabaseSessionManager) -> None:
    """One row, all of them, or a list that may be long: each is a round trip by itself."""
    async with manager.session(read_only=True) as session:
        connection: Any = await session.connection()
        assert await EVERY_JAR.first(session)
        assert await EVERY_JAR.all(session)
        assert [part async for part in EVERY_JAR.in_parts(session, 10)]
        driver_connection = (await connection.get_raw_connection()).driver_connection
        if manager.read_engine.dialect.driver == "asyncpg":
            assert not driver_connection.is_in_transaction()
        else:
            assert driver_connection.info.transaction_status == TransactionStatus.IDLE


SLOW = JSONSelect(
    select(func.count().label("n")).select_from(func.generate_series(1, 2_000_000_000)),
    create_model("Counted", n=(int, ...)),
)
WRONG = JSONSelect(
    select(Jar, (1 / bindparam("by", type_=Integer)).label("n")),
    create_model("Divided", n=(Decimal, ...)),
)


async def test_an_error_of_a_lone_read_is_that_of_a_connection(
    manager: DatabaseSessionManager,
) -> None:
    """With its SQLSTATE, and the connection is as good as before."""
    for _ in range(20):
        async with manager.session(read_only=True) as session:
            with pytest.raises(DBAPIError, match="division by zero") as raised:
                await WRONG.first(session, by=0)
        assert raised.value.statement
        assert not raised.value.connection_invalidated
        assert getattr(raised.value.driver_exception, "sqlstate", None) == "22012"
    await nothing_left(manager)


async def test_a_lone_read_whose_connection_is_lost_empties_the_pool(
    manager: DatabaseSessionManager, database_url: str
) -> None:
    """The next one has a new connection; none of the old is trusted any more."""
    async with manager.session(read_only=True) as session:
        assert await ONE_JAR.get(session, RED.id)
    with psycopg.connect(database_url, autocommit=True) as other:
        ended = (
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        assert other.execute(ended).fetchall()
    async with manager.session(read_only=True) as session:
        with pytest.raises(DBAPIError) as raised:
            await ONE_JAR.get(session, RED.id)
        assert raised.value.connection_invalidated
    async with manager.session(read_only=True) as session:
        assert await ONE_JAR.get(session, RED.id)
    await nothing_left(manager)


@pytest.mark.parametrize("by", ["task", "anyio"])
async def test_a_lone_read_that_is_cancelled_leaves_nothing(
    manager: DatabaseSessionManager, by: str
) -> None:
    """No statement runs on, and no connection is lost."""

    async def read() -> None:
        async with manager.session(read_only=True) as session:
            await SLOW.first(session)

    for _ in range(3):
        await cancel(read, by, after=0.2)
        await nothing_left(manager)


async def test_more_lone_reads_than_connections_wait(manager: DatabaseSessionManager) -> None:
    """A connection that does not lie ready is waited for, as everywhere."""

    async def read() -> bytes | None:
        async with manager.session(read_only=True) as session:
            return await ONE_JAR.get(session, RED.id)

    found = await asyncio.gather(*(read() for _ in range(50)))

    assert {JarView.model_validate_json(it or b"") == RED for it in found} == {True}
    await nothing_left(manager)


async def test_a_connection_that_has_just_become_stale_is_looked_after(
    manager: DatabaseSessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lay ready a moment ago, and does no more when it is taken."""
    async with manager.session(read_only=True) as session:
        assert await ONE_JAR.get(session, RED.id)
        # With psycopg nobody asks before it is taken.
        answers = iter([manager.read_engine.dialect.driver == "asyncpg"])
        monkeypatch.setattr(ConnectionPool, "is_ready", property(lambda _: next(answers, False)))
        assert await ONE_JAR.get(session, RED.id)
    await nothing_left(manager)


async def test_who_listens_hears_of_a_lone_read(
    manager: DatabaseSessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The short way is taken only where nobody could tell; its names are SQLAlchemy's own."""
    # Once a test has listened to all engines, SQLAlchemy says so until the process ends.
    monkeypatch.setattr(Engine, "_has_events", False)
    engine = manager.read_engine.sync_engine
    heard: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        heard.append(statement)

    async with manager.session(read_only=True) as session:
        assert await ONE_JAR.get(session, RED.id)
        assert (engine._has_events, engine._should_log_info()) == (False, False)
        for lone in (ONE_JAR._select, SLOW, WRONG):
            compiled = lone._first._for(engine.dialect)
            assert compiled is not None
            assert can_read_alone(engine, compiled.sql)
        assert not can_read_alone(engine, "SELECT row_to_json(r) FROM (SELECT now() AS at) r")
        event.listen(engine, "before_cursor_execute", note)
        assert engine._has_events
        assert await ONE_JAR.get(session, RED.id)
    assert ["convert_to" in statement for statement in heard] == [True]


class Said(BaseModel):
    """Show a text."""

    text: str


TEXTS = ["", "a", 'say "hello"', "back\\slash", "\t\n\r\x01\x1f\x7f", "\u2028é🫙", "</script>"]


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("which", ["cluster", "older_cluster"])
async def test_texts_mean_the_same_on_an_older_postgresql(
    request: pytest.FixtureRequest, which: str, driver: str
) -> None:
    """From 17 on there is a faster way to write them, in the first answer or the next."""
    cluster: Cluster = request.getfixturevalue(which)
    cluster.create_database(f"texts_{driver}")
    manager = DatabaseSessionManager(Base.metadata)
    url = cluster.url(f"texts_{driver}")
    manager.init(url.replace("postgresql://", f"postgresql+{driver}://"))
    given = bindparam("given", type_=ARRAY(String))
    said = JSONSelect(select(func.unnest(given, type_=String).label("text")), Said)
    for _ in range(2):
        async with manager.session(read_only=True) as session:
            answer = json.loads(await said.all(session, given=TEXTS))
        assert answer == [{"text": text} for text in TEXTS]
    dialect = manager.read_engine.dialect
    compiled = said._all.compiled(dialect, {"given": TEXTS})
    assert compiled is not None
    assert dialect.server_version_info is not None
    assert ("JSON_SCALAR(" in compiled[0]) == (dialect.server_version_info >= (17,))
    await manager.close()


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_session_that_has_ended_reads_nothing(
    manager: DatabaseSessionManager, read_only: bool
) -> None:
    """A stream or a background task that outlives it is told so."""
    async with manager.session(read_only=read_only) as session:
        pass
    with pytest.raises(InvalidRequestError, match="closed"):
        await ONE_JAR.get(session, RED.id)
