"""A COMMIT whose connection is lost ends as PostgreSQL says that it has ended."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from pydantic import BaseModel
from sqlalchemy import URL, String, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column

from stillroom.engine import EngineSettings, inquiry
from stillroom.engine.outcome import Transaction
from stillroom.errors import DatabaseUnavailableError, UnknownOutcomeError
from stillroom.fastapi import InsertResponse
from stillroom.json import JSONInsert
from stillroom.manager import DatabaseSessionManager
from stillroom.postgres import temporary_cluster
from stillroom.url import parse_url
from tests.processes import eventually
from tests.proxy import Loss, Proxy, proxied
from tests.test_manager import Base, Jar, names


class Box(Base):
    """A row with a key of its own, and a name that is unique."""

    __tablename__ = "boxes"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str] = mapped_column(String(20), unique=True)


class BoxSchema(BaseModel):
    """Show a box."""

    id: UUID
    name: str


NEW_BOX = JSONInsert(Box, BoxSchema)


@pytest.fixture
def way(driver_url: str) -> Iterator[tuple[Proxy, URL]]:
    """Give a proxy, and the URL through it, for each driver in turn."""
    with proxied(driver_url) as way:
        yield way


@pytest.fixture
def proxy(way: tuple[Proxy, URL]) -> Proxy:
    """Give the proxy."""
    return way[0]


@pytest.fixture
async def manager(way: tuple[Proxy, URL]) -> AsyncIterator[DatabaseSessionManager]:
    """Give a manager that reaches PostgreSQL through the proxy, with its table made."""
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(way[1], settings=EngineSettings(pool_size=2))
    async with manager.connect() as connection:
        await manager.create_all(connection)
    yield manager
    await manager.close()


@pytest.mark.parametrize("loss", ["answer", "connection"])
async def test_a_commit_whose_answer_is_lost_has_succeeded(
    manager: DatabaseSessionManager, proxy: Proxy, loss: Loss
) -> None:
    """PostgreSQL has committed, so the caller is told so; its objects are as after any commit."""
    proxy.cut(b"COMMIT", loss)
    async with manager.session() as session:
        jar = await Jar.create(session, name="kept")
        await session.commit()
        assert jar.name == "kept"
        await Jar.create(session, name="next")
        await session.commit()

    assert (proxy.cuts, await names(manager)) == (1, {"kept", "next"})
    assert in_use(manager) == 0


async def test_a_commit_that_never_arrived_has_written_nothing(
    manager: DatabaseSessionManager, proxy: Proxy
) -> None:
    """Its backend waits for a COMMIT that does not come: it is ended, and a new try may be made."""
    proxy.cut(b"COMMIT", "request")
    with pytest.raises(DatabaseUnavailableError, match="has rolled back"):
        async with manager.begin() as session:
            await Jar.create(session, name="lost")

    async with manager.begin() as session:
        assert await session.scalar(OPEN_TRANSACTIONS) == 0
        await Jar.create(session, name="again")
    assert (await names(manager), in_use(manager)) == ({"again"}, 0)


async def test_the_connection_of_connect_is_asked_about_too(
    manager: DatabaseSessionManager, proxy: Proxy
) -> None:
    """A connection of the engine commits like a session."""
    proxy.cut(b"COMMIT")
    async with manager.connect() as connection:
        await connection.execute(text("INSERT INTO jars (name) VALUES ('by hand')"))

    async with manager.engine.connect() as connection:
        proxy.cut(b"COMMIT")
        await connection.execute(text("INSERT INTO jars (name) VALUES ('again')"))
        await connection.commit()
        await connection.execute(text("INSERT INTO jars (name) VALUES ('and again')"))
        await connection.commit()

    assert (proxy.cuts, await names(manager)) == (2, {"by hand", "again", "and again"})
    assert in_use(manager) == 0


async def test_a_transaction_that_wrote_nothing_may_be_done_again(
    manager: DatabaseSessionManager, proxy: Proxy
) -> None:
    """It has no id to ask for, and needs none."""
    proxy.cut(b"COMMIT")
    with pytest.raises(DatabaseUnavailableError):
        async with manager.begin() as session:
            assert await Jar.get_all(session) == []
    assert proxy.cuts == 1


async def test_a_connection_that_is_lost_before_commit_has_written_nothing(
    manager: DatabaseSessionManager, proxy: Proxy
) -> None:
    """While the transaction says its id nothing is under way yet."""
    async with manager.session() as session:
        await Jar.create(session, name="early")
        await session.flush()
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
        async with manager.session() as other:
            await other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
        with pytest.raises(DatabaseUnavailableError, match="before anything was committed"):
            await session.commit()

    assert await names(manager) == set()


async def test_a_server_that_has_lost_its_history_is_not_believed(
    manager: DatabaseSessionManager, proxy: Proxy, database_url: str
) -> None:
    """After a crash an id may be another transaction's: "committed" says nothing then."""
    with psycopg.connect(database_url, autocommit=True) as beside:
        async with manager.session() as session:
            await Jar.create(session, name="first")
            await session.commit()
            beside.execute("SELECT pg_stat_reset_shared('bgwriter')")
            await Jar.create(session, name="second")
            proxy.cut(b"COMMIT")
            with pytest.raises(UnknownOutcomeError, match="could not say"):
                await session.commit()
    assert await names(manager) == {"first", "second"}


async def test_a_server_that_is_away_leaves_the_outcome_unknown(
    manager: DatabaseSessionManager, proxy: Proxy
) -> None:
    """It is waited for, but not for ever; the place in the pool is free afterwards."""
    proxy.cut(b"COMMIT", then_away=True)
    with pytest.raises(UnknownOutcomeError, match="could not say"):
        async with asyncio.timeout(10), manager.begin() as session:
            await Jar.create(session, name="unknown")
    assert in_use(manager) == 0


async def test_what_is_not_to_be_asked_about_costs_nothing(way: tuple[Proxy, URL]) -> None:
    """Without `settle_commits` a lost COMMIT has an unknown outcome at once."""
    proxy, url = way
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(url, settings=EngineSettings(settle_commits=False))
    async with manager.connect() as connection:
        await manager.create_all(connection)
    proxy.cut(b"COMMIT")
    with pytest.raises(UnknownOutcomeError, match="lost during a COMMIT"):
        async with manager.begin() as session:
            await Jar.create(session, name="unknown")
    await manager.close()


@pytest.mark.parametrize("loss", ["answer", "connection", "request"])
async def test_a_lone_insert_whose_answer_is_lost_is_answered(
    manager: DatabaseSessionManager, proxy: Proxy, loss: Loss
) -> None:
    """It is sent again: its key is its own, so PostgreSQL refuses to do it twice."""
    proxy.cut(b"cut off", loss)
    answers = [await insert(manager, "cut off"), await insert(manager, "not cut")]

    async with manager.session() as session:
        rows = {
            row.name: {"id": str(row.id), "name": row.name} for row in await Box.get_all(session)
        }
    assert [json.loads(answer) for answer in answers] == [rows["cut off"], rows["not cut"]]
    assert (proxy.cuts, len(rows), in_use(manager)) == (1, 2, 0)


async def test_a_lone_insert_that_another_row_forbids_is_refused_as_ever(
    manager: DatabaseSessionManager, proxy: Proxy
) -> None:
    """What refused the second one had refused the first one too."""
    await insert(manager, "taken")
    proxy.cut(b"taken")
    with pytest.raises(IntegrityError):
        await insert(manager, "taken")
    assert (proxy.cuts, in_use(manager)) == (1, 0)


async def test_a_lone_insert_whose_key_is_given_has_an_unknown_outcome(
    manager: DatabaseSessionManager, proxy: Proxy
) -> None:
    """A row with that key may be another one's."""
    proxy.cut(b"cut off")
    with pytest.raises(UnknownOutcomeError):
        await insert(manager, "cut off", id=uuid4())


async def insert(manager: DatabaseSessionManager, name: str, **values: Any) -> bytes:
    """Insert a box as a view does that returns an InsertResponse."""
    async with manager.session() as session:
        response = InsertResponse(NEW_BOX, session, {"name": name, **values})
        await response.run()
    return bytes(response.body)


def test_an_id_that_a_crash_gave_to_another_transaction_is_not_believed() -> None:
    """PostgreSQL says "committed" of a transaction that was lost: the id is another one's now."""
    with temporary_cluster() as cluster:
        url = cluster.url("postgres")
        lost = psycopg.connect(url)
        row = lost.execute("SELECT stats_reset::text FROM pg_stat_bgwriter").fetchone()
        lost.execute("CREATE TABLE lost ()")
        number = lost.execute("SELECT pg_current_xact_id()::text").fetchone()
        assert row is not None
        assert number is not None
        os.kill(lost.info.backend_pid, signal.SIGKILL)
        lost.close()

        def status() -> str | None:
            try:
                with psycopg.connect(url, autocommit=True) as other:
                    other.execute("SELECT pg_current_xact_id()")
                    query = "SELECT pg_xact_status(%s::text::xid8)"
                    found = other.execute(query, number).fetchone()
            except (psycopg.OperationalError, psycopg.DataError):
                return None  # it recovers, or has not come so far again
            return str(found[0]) if found else None

        assert eventually(lambda: status() == "committed")
        transaction = Transaction(number[0], row[0])
        settings = EngineSettings()
        failure = asyncio.run(inquiry(parse_url(url), settings).failure_of(transaction))
        assert isinstance(failure, UnknownOutcomeError)


def in_use(manager: DatabaseSessionManager) -> int:
    """Count the connections that are in use."""
    pool: Any = manager.engine.pool
    return int(pool.checkedout())


OPEN_TRANSACTIONS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND state LIKE 'idle in transaction%' AND pid <> pg_backend_pid()"
)
