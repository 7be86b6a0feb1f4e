"""Rows that one statement inserts and answers as JSON."""

import asyncio
from collections.abc import AsyncIterator
from enum import Enum as PyEnum
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import anyio
import pytest
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Enum, String, event, func, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, validates

from stillroom import ending
from stillroom.engine import EngineSettings
from stillroom.errors import ConfigurationError, UnknownOutcomeError
from stillroom.json import JSONInsert
from stillroom.manager import DatabaseSessionManager
from stillroom.model import Model
from stillroom.session import LONGER
from tests.test_manager import cancel, make_commits_slow, nothing_left


class Base(Model, DeclarativeBase):
    """The base of the models."""


class Colour(PyEnum):
    """An enum whose names are stored."""

    RED = "red"
    BLUE = "blue"


class Jar(Base):
    """A row whose columns are filled in many ways."""

    __tablename__ = "jars"

    id: Mapped[UUID] = mapped_column("jar_id", primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(20), unique=True)
    colour: Mapped[Colour] = mapped_column(Enum(Colour), default=Colour.BLUE)
    shelf: Mapped[int] = mapped_column(server_default="3")
    label: Mapped[str] = mapped_column(default=func.lower("LABEL"))
    note: Mapped[str | None]


class JarView(BaseModel):
    """Show a jar."""

    id: UUID
    name: str
    colour: Colour
    shelf: int = Field(serialization_alias="onShelf")
    label: str
    note: str | None


NEW_JAR = JSONInsert(Jar, JarView)

Compiled = partial[tuple[str, Any] | None]

UNIQUE = "uq_jars_name"
"""The name that the base gives to the constraint."""


@pytest.fixture
async def manager(driver_url: str) -> AsyncIterator[DatabaseSessionManager]:
    """Give a manager of a database with the table, by each driver."""
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(driver_url)
    async with manager.connect() as connection:
        await manager.create_all(connection)
    yield manager
    await manager.close()


async def names(manager: DatabaseSessionManager) -> list[str]:
    """Return the names that are committed, in their order."""
    async with manager.session(read_only=True) as session:
        return list(await session.scalars(select(Jar.name).order_by(Jar.name)))


def new(**values: Any) -> tuple[partial[bytes], None, Compiled]:
    """Return what `commit_with` takes to insert a jar, which asyncpg does without a Connection."""
    return alone(NEW_JAR, **values)


def alone(insert: JSONInsert, **values: Any) -> tuple[partial[bytes], None, Compiled]:
    """Return what `commit_with` takes to insert a row."""
    complete = insert.complete(values)
    return partial(insert.run, values=complete), None, partial(insert.compiled, values=complete)


async def test_the_answer_is_that_of_the_row_that_is_there(
    manager: DatabaseSessionManager,
) -> None:
    """Defaults of Python, of SQL and of the server are taken, as for an object."""
    async with manager.session() as session:
        bare = await session.commit_with(*new(name="bare"))
    async with manager.session() as session:
        whole = await session.commit_with(
            *new(name="whole", colour=Colour.RED, shelf=9, label="x", note="n")
        )
    async with manager.session(read_only=True) as session:
        rows = {jar.name: jar for jar in await session.scalars(select(Jar))}
    for answer, name in ((bare, "bare"), (whole, "whole")):
        expected = JarView.model_validate(rows[name], from_attributes=True)
        assert answer.decode().replace('"onShelf"', '"shelf"') != answer.decode()
        shown = answer.replace(b'"onShelf"', b'"shelf"')
        assert JarView.model_validate_json(shown) == expected
    assert (rows["bare"].colour, rows["bare"].shelf, rows["bare"].label) == (
        Colour.BLUE,
        3,
        "label",
    )


async def test_a_statement_by_itself_begins_no_transaction(
    manager: DatabaseSessionManager,
) -> None:
    """PostgreSQL gets no BEGIN and no COMMIT; the next transaction of the connection is whole."""
    found: list[tuple[bool, int]] = []

    def look(connection: Connection) -> bytes:
        answer = NEW_JAR.run(connection, {"name": "alone"})
        begun = "SELECT count(*) FROM jars WHERE xmin = pg_current_xact_id_if_assigned()::xid"
        found.append((connection.in_transaction(), connection.scalar(text(begun)) or 0))
        return answer

    async with manager.session() as session:
        await session.commit_with(look)
    assert found == [(True, 0)]  # SQLAlchemy's word for it, and PostgreSQL's
    async with manager.session() as session:
        await Jar.create(session, name="rolled back")
    assert await names(manager) == ["alone"]


async def test_it_is_part_of_what_the_session_did_before(manager: DatabaseSessionManager) -> None:
    """All of it is committed, or nothing."""
    async with manager.session() as session:
        session.add(Jar(name="added"))
        await session.commit_with(*new(name="with it"))
    assert await names(manager) == ["added", "with it"]

    with pytest.raises(IntegrityError):
        async with manager.session() as session:
            await Jar.create(session, name="before")
            await session.commit_with(*new(name="added"))
    assert await names(manager) == ["added", "with it"]
    await nothing_left(manager)


async def test_what_a_constraint_refuses_is_an_error(manager: DatabaseSessionManager) -> None:
    """As that of an object; nothing is written and no connection lost."""
    async with manager.session() as session:
        await session.commit_with(*new(name="one"))
    for _ in range(20):
        async with manager.session() as session:
            with pytest.raises(IntegrityError, match="jars_name"):
                await session.commit_with(*new(name="one"))
    assert await names(manager) == ["one"]
    await nothing_left(manager)


async def test_a_read_session_and_one_that_has_ended_insert_nothing(
    manager: DatabaseSessionManager,
) -> None:
    """PostgreSQL refuses the first, SQLAlchemy the second."""
    async with manager.session(read_only=True) as session:
        with pytest.raises(Exception, match="read-only transaction"):
            await session.commit_with(*new(name="never"))
    async with manager.session() as session:
        pass
    with pytest.raises(InvalidRequestError, match="closed"):
        await session.commit_with(*new(name="never"))
    assert await names(manager) == []


async def make_inserts_slow(manager: DatabaseSessionManager, seconds: float) -> None:
    """Let each INSERT into the table take its time."""
    async with manager.connect() as connection:
        await connection.execute(
            text(
                "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END$$"
            )
        )
        await connection.execute(
            text("CREATE TRIGGER wait BEFORE INSERT ON jars FOR EACH ROW EXECUTE FUNCTION wait()")
        )


@pytest.mark.parametrize(
    "name", ["before_cursor_execute", "after_cursor_execute", "begin", "commit", "engine_connect"]
)
async def test_who_listens_to_the_engine_hears_of_it(
    manager: DatabaseSessionManager, name: str
) -> None:
    """As of any statement that SQLAlchemy runs; nobody else pays for that."""
    heard: list[str] = []
    async with manager.session() as session:
        await session.commit_with(*new(name="unheard"))
    event.listen(manager.engine.sync_engine, name, lambda *_: heard.append(name))

    async with manager.session() as session:
        await session.commit_with(*new(name="heard"))

    assert heard == [name]
    assert await names(manager) == ["heard", "unheard"]


async def test_a_deferred_constraint_refuses_it_too(manager: DatabaseSessionManager) -> None:
    """PostgreSQL looks after the row has come back; that answer is no success."""
    async with manager.connect() as connection:
        await connection.execute(
            text(
                f"ALTER TABLE jars DROP CONSTRAINT {UNIQUE}, ADD CONSTRAINT {UNIQUE} "
                "UNIQUE (name) DEFERRABLE INITIALLY DEFERRED"
            )
        )
    async with manager.session() as session:
        await session.commit_with(*new(name="one"))
    async with manager.session() as session:
        with pytest.raises(IntegrityError, match=UNIQUE):
            await session.commit_with(*new(name="one"))
    assert await names(manager) == ["one"]
    await nothing_left(manager)


async def test_who_waits_in_vain_for_a_connection_has_sent_nothing(driver_url: str) -> None:
    """That is no unknown outcome, whether the time is over or the task is cancelled."""
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(driver_url, settings=EngineSettings(pool_size=1, pool_timeout=0.2))
    async with manager.connect() as connection:
        await manager.create_all(connection)
    async with manager.connect() as holding:
        await holding.execute(text("SELECT 1"))
        async with manager.session() as session:
            with pytest.raises(PoolTimeoutError):
                await session.commit_with(*new(name="never"))
        async with manager.session() as session:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.commit_with(*new(name="nor this")), 0.05)

    async with manager.session() as session:
        await session.commit_with(*new(name="now"))
    assert await names(manager) == ["now"]
    await nothing_left(manager)
    await manager.close()


async def test_it_may_take_as_long_as_its_view_says(impatient: DatabaseSessionManager) -> None:
    """A longer deadline is one for this statement too."""
    await make_inserts_slow(impatient, 0.8)

    async with impatient.session() as session:
        session.info[LONGER] = 10.0
        await session.commit_with(*new(name="late"))

    assert await names(impatient) == ["late"]


@pytest.mark.parametrize("by", ["task", "anyio"])
async def test_a_cancellation_does_not_cut_it(manager: DatabaseSessionManager, by: str) -> None:
    """It is a COMMIT too: who is cancelled meanwhile learns that when it is done."""
    await make_inserts_slow(manager, 0.6)

    async def insert() -> None:
        async with manager.session() as session:
            await session.commit_with(*new(name="whole"))

    await cancel(insert, by, after=0.3)

    assert await names(manager) == ["whole"]
    await nothing_left(manager)


async def test_a_connection_that_is_lost_meanwhile_is_an_unknown_outcome(
    manager: DatabaseSessionManager,
) -> None:
    """The statement was sent and nothing came back: that is not "try again later"."""
    await make_inserts_slow(manager, 30)

    async def cut() -> None:
        query = text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%INSERT%' "
            "AND datname = current_database() AND state = 'active' AND pid <> pg_backend_pid()"
        )
        with anyio.fail_after(5):
            while True:
                async with manager.session() as session:
                    if (await session.execute(query)).all():
                        return

    cutting = asyncio.create_task(cut())
    async with manager.session() as session:
        with pytest.raises(UnknownOutcomeError):
            await session.commit_with(*new(name="cut off"))
    await cutting
    await nothing_left(manager)


@pytest.fixture
async def impatient(driver_url: str) -> AsyncIterator[DatabaseSessionManager]:
    """Give such a manager whose statements may take half a second."""
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(driver_url, settings=EngineSettings(statement_timeout=0.5))
    async with manager.connect() as connection:
        await manager.create_all(connection)
    yield manager
    await manager.close()


async def test_one_that_hangs_is_an_unknown_outcome(
    impatient: DatabaseSessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    """After the deadline the slot is free and the error says so; it runs to its end."""
    await make_commits_slow(impatient, 3)

    async with impatient.session() as session:
        with pytest.raises(UnknownOutcomeError, match="not answered a COMMIT in time"):
            await session.commit_with(*new(name="who knows"))

    pool: Any = impatient.engine.pool
    assert pool.checkedout() == 0
    assert await names(impatient) == []
    await asyncio.gather(*ending._endings)
    assert await names(impatient) == ["who knows"]
    assert "The COMMIT whose outcome was unknown has succeeded" in caplog.messages


async def test_one_that_takes_too_long_is_cancelled_by_postgresql(
    impatient: DatabaseSessionManager,
) -> None:
    """Its answer is waited for, so that the outcome is known: nothing was written."""
    await make_inserts_slow(impatient, 30)

    async with impatient.session() as session:
        with pytest.raises(DBAPIError, match="statement timeout"):
            await session.commit_with(*new(name="never"))

    assert await names(impatient) == []
    await nothing_left(impatient)


class Other(Model, DeclarativeBase):
    """A base of models that JSONInsert refuses."""


class OtherView(BaseModel):
    """Show one."""

    id: int


def as_id(context: Any) -> int:
    """Return what another column has."""
    return int(context.current_parameters["id"])


class WithContext(Other):
    """A default that looks at the statement."""

    __tablename__ = "with_context"
    id: Mapped[int] = mapped_column(primary_key=True)
    copy: Mapped[int] = mapped_column(default=as_id)


class WithValidator(Other):
    """Code that sees each value."""

    __tablename__ = "with_validator"
    id: Mapped[int] = mapped_column(primary_key=True)

    @validates("id")
    def check(self, _key: str, value: int) -> int:
        """Change it."""
        return value + 1


class WithVersion(Other):
    """A counter that SQLAlchemy keeps."""

    __tablename__ = "with_version"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column()
    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012


class WithEvent(Other):
    """A listener that sees each row."""

    __tablename__ = "with_event"
    id: Mapped[int] = mapped_column(primary_key=True)


class Parent(Other):
    """A row that may be of another class."""

    __tablename__ = "parents"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind"}  # noqa: RUF012


event.listen(WithEvent, "before_insert", lambda *_: None)


@pytest.mark.parametrize(
    ("entity", "why"),
    [
        (WithContext, "the default of copy depends on the statement"),
        (WithValidator, "validates"),
        (WithVersion, "version_id_col"),
        (WithEvent, "before_insert"),
        (Parent, "it is inherited"),
    ],
)
def test_an_entity_that_needs_its_objects_is_refused(entity: type[Model], why: str) -> None:
    """What an INSERT would pass by is named when it is declared."""
    with pytest.raises(ConfigurationError, match=rf"{why}.*Use {entity.__name__}\.create"):
        JSONInsert(entity, OtherView)


class WrongView(BaseModel):
    """Ask for what the entity does not have."""

    weight: int


async def test_names_are_those_of_the_entity(manager: DatabaseSessionManager) -> None:
    """One that it does not have is an error before anything is sent."""
    with pytest.raises(ConfigurationError, match=r"WrongView\.weight"):
        JSONInsert(Jar, WrongView)
    async with manager.session() as session:
        with pytest.raises(TypeError, match="'jar_id' is no column of Jar"):
            await session.commit_with(*new(name="a", jar_id=uuid4()))
        with pytest.raises((IntegrityError, ProgrammingError)):
            await session.commit_with(*new(note="without a name"))
    await nothing_left(manager)
