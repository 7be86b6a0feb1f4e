"""An engine that a service can rely on."""

import logging
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from stillroom.engine import EngineSettings, create_engine
from stillroom.errors import ConfigurationError, DatabaseUnavailableError, UncommittedWritesError
from stillroom.url import parse_url


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize(
    "name", ["pool_timeout", "connect_timeout", "recycle_after", "ping_after", "statement_timeout"]
)
def test_a_time_that_is_none_is_refused(name: str, value: float) -> None:
    """A negative or endless time is a mistake that would show at the worst moment."""
    with pytest.raises(ConfigurationError, match=f"{name} is {value}; it is a time in seconds"):
        EngineSettings(**{name: value})  # type: ignore[arg-type]


def test_an_empty_pool_is_refused() -> None:
    """A pool of no connections could never answer."""
    with pytest.raises(ConfigurationError, match="at least one connection"):
        EngineSettings(pool_size=0)


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=disable",
        "sslmode=prefer&connect_timeout=3",
        "application_name=given&options=-c%20geqo%3Doff",
        "target_session_attrs=read-write",
    ],
)
async def test_parameters_of_libpq_reach_the_server(driver_url: str, query: str) -> None:
    """Libpq's parameters work with both drivers."""
    engine = create_engine(parse_url(f"{driver_url}&{query}"), EngineSettings())

    assert await scalar(engine, "SELECT 1") == 1
    if "application_name" in query:
        assert await scalar(engine, "SHOW application_name") == "given"
        assert await scalar(engine, "SHOW geqo") == "off"
    await engine.dispose()


async def test_each_connection_has_the_settings_of_a_service(driver_url: str) -> None:
    """Timeouts and the name are set on connect, on both drivers, in milliseconds."""
    settings = EngineSettings(statement_timeout=1.5, lock_timeout=0.7, application_name="larder")
    engine = create_engine(parse_url(driver_url), settings)

    assert await scalar(engine, "SHOW statement_timeout") == "1500ms"
    assert await scalar(engine, "SHOW lock_timeout") == "700ms"
    assert await scalar(engine, "SHOW client_connection_check_interval") == "500ms"
    assert await scalar(engine, "SHOW application_name") == "larder"
    await engine.dispose()


async def test_the_pool_is_fixed_and_hands_out_the_last_one_returned(driver_url: str) -> None:
    """No overflow that connects anew under load, and the warmest connection first."""
    engine = create_engine(parse_url(driver_url), EngineSettings(pool_size=3))
    pool: Any = engine.pool

    async with engine.connect() as one, engine.connect() as two, engine.connect():
        last = (await one.get_raw_connection()).driver_connection
        assert (pool.checkedout(), pool.overflow()) == (3, 0)
        await two.close()
        await one.close()
        async with engine.connect() as again:
            assert (await again.get_raw_connection()).driver_connection is last
    await engine.dispose()


async def test_an_idle_connection_that_was_cut_fails_nobody(driver_url: str) -> None:
    """Connections are pinged after they lay idle, so a restart costs no request an error."""
    engine = create_engine(parse_url(driver_url), EngineSettings(ping_after=0.0, pool_size=3))
    async with engine.connect(), engine.connect(), engine.connect():
        pass
    with psycopg.connect(driver_url.replace(f"+{engine.dialect.driver}", "")) as other:
        other.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    for _ in range(5):
        assert await scalar(engine, "SELECT 1") == 1
    await engine.dispose()


async def test_a_busy_connection_is_not_pinged(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that was used a moment ago costs no second round trip."""
    engine = create_engine(parse_url(database_url), EngineSettings(ping_after=60))
    await scalar(engine, "SELECT 1")
    pings: list[object] = []
    engine.sync_engine.dialect.do_ping = pings.append  # type: ignore[method-assign, assignment]

    with caplog.at_level(logging.DEBUG, "sqlalchemy.pool"):
        await scalar(engine, "SELECT 1")

    assert pings == []
    await engine.dispose()


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_refused_connection_is_the_same_error_on_both_drivers(driver: str) -> None:
    """The drivers disagree on the error of a refused connection; Stillroom has one."""
    url = f"postgresql+{driver}://user:secret@127.0.0.1:1/nowhere"
    engine = create_engine(parse_url(url), EngineSettings())

    with pytest.raises(
        DatabaseUnavailableError, match=r"host 127\.0\.0\.1, database nowhere"
    ) as error:
        await scalar(engine, "SELECT 1")

    assert "secret" not in str(error.value)
    await engine.dispose()


def test_neither_the_password_nor_parameters_are_shown(database_url: str) -> None:
    """No secret stands in a repr, and no parameter in an error."""
    engine = create_engine(parse_url("postgresql://user:secret@host/name"), EngineSettings())

    assert "secret" not in repr(engine)
    assert engine.sync_engine.hide_parameters


async def test_the_commit_of_an_aborted_transaction_raises(driver_url: str) -> None:
    """PostgreSQL answers it with ROLLBACK and no error; it is not passed over here."""
    engine = create_engine(parse_url(driver_url), EngineSettings())
    async with engine.connect() as connection:
        backend = await connection.scalar(text("SELECT pg_backend_pid()"))
        await connection.execute(text("CREATE TABLE lost (id int)"))
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT 1 / 0"))
        with pytest.raises(UncommittedWritesError, match=r"Nothing was committed.*savepoint"):
            await connection.commit()
    async with engine.connect() as connection:  # the same one, and its transaction has ended
        assert await connection.scalar(text("SELECT pg_backend_pid()")) == backend
        assert await connection.scalar(text("SELECT to_regclass('lost')")) is None
    await engine.dispose()


async def test_the_manager_connects_through_the_dialect(database_url: str) -> None:
    """Contract: "do_connect" is sent for each connection, which tests stand on."""
    sent: list[object] = []

    def note(*arguments: object) -> None:
        sent.append(arguments)

    event.listen(Engine, "do_connect", note)
    engine = create_engine(parse_url(database_url), EngineSettings())
    await scalar(engine, "SELECT 1")
    event.remove(Engine, "do_connect", note)

    assert len(sent) == 1
    await engine.dispose()


async def scalar(engine: AsyncEngine, statement: str) -> Any:
    """Run one statement on a connection of the pool."""
    async with engine.connect() as connection:
        return await connection.scalar(text(statement))
