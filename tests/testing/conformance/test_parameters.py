"""Run-time parameters: of a session, of a transaction, of the start of a connection."""

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.testing.conformance.authors import (
    add,
    code_of,
    driver_of,
    rows,
    run,
    value,
)  # fmt: skip
from tests.testing.conftest import NewEngine


async def test_parameters_of_the_start_are_the_engines(new_engine: NewEngine) -> None:
    """Two engines with their own server settings; RESET goes back to them."""
    arguments = {"server_settings": {"application_name": "one", "TimeZone": "Asia/Tokyo"}}
    one, two = new_engine(connect_args=arguments), new_engine()
    async with one.connect() as first, two.connect() as second:
        for _ in range(2):
            assert await value(first, "SHOW application_name") == "one"
            assert await value(first, "SHOW timezone") == "Asia/Tokyo"
            assert await value(second, "SHOW application_name") == ""
            assert await value(second, "SHOW timezone") != "Asia/Tokyo"
            await run(first, "SET timezone = 'UTC'", "RESET timezone")


async def test_reset_all_forgets_what_was_set(engine: AsyncEngine) -> None:
    """RESET of one parameter, RESET ALL and SET TO DEFAULT."""
    async with engine.connect() as connection:
        for reset in ("RESET work_mem", "RESET ALL", "SET work_mem TO DEFAULT"):
            await run(connection, "SET work_mem = '8MB'", reset)
            assert await value(connection, "SHOW work_mem") == "4MB"
            await connection.commit()
            assert await value(connection, "SHOW work_mem") == "4MB"


async def test_a_local_parameter_covers_the_sessions(engine: AsyncEngine) -> None:
    """After the COMMIT the session's value is back; SET after SET LOCAL wins."""
    async with engine.connect() as connection:
        await run(connection, "SET work_mem = '8MB'", "SET LOCAL work_mem = '9MB'")
        await connection.commit()
        assert await value(connection, "SHOW work_mem") == "8MB"
        await run(connection, "SET LOCAL work_mem = '9MB'", "SET work_mem = '10MB'")
        await connection.commit()
        assert await value(connection, "SHOW work_mem") == "10MB"


async def test_the_time_zone_changes_what_is_read(engine: AsyncEngine) -> None:
    """SET TIME ZONE works on text and is one connection's alone."""
    moment = "SELECT (timestamptz '2024-01-01 12:00+00')::text"
    async with engine.connect() as one, engine.connect() as two:
        await run(one, "SET TIME ZONE 'Asia/Tokyo'")
        await run(two, "SET TIME ZONE 'UTC'")
        assert await value(one, moment) == "2024-01-01 21:00:00+09"
        assert await value(two, moment) == "2024-01-01 12:00:00+00"


async def test_a_search_path_finds_its_tables(engine: AsyncEngine) -> None:
    """One statement, prepared on two connections, reads the table of each one's schema."""
    async with engine.begin() as connection:
        for schema in ("one", "two"):
            await run(
                connection,
                f"CREATE SCHEMA {schema}",
                f"CREATE TABLE {schema}.here AS SELECT '{schema}'::text AS name",
            )
    async with engine.connect() as one, engine.connect() as two:
        await run(one, "SET search_path = one")
        await run(two, "SET search_path = two")
        for _ in range(3):
            assert await value(one, "SELECT name FROM here") == "one"
            assert await value(two, "SELECT name FROM here") == "two"


async def test_a_parameter_of_an_error_never_was(engine: AsyncEngine) -> None:
    """A value that PostgreSQL does not take changes nothing."""
    async with engine.connect() as connection:
        await run(connection, "SET work_mem = '8MB'")
        await connection.commit()
        assert await code_of(connection, "SET work_mem = 'much'") == "22023"
        await connection.rollback()
        assert await code_of(connection, "SET nonsense = 1") == "42704"
        await connection.rollback()
        assert await value(connection, "SHOW work_mem") == "8MB"


async def test_everything_is_discarded(engine: AsyncEngine) -> None:
    """DISCARD ALL, which poolers send, resets the session; it is no part of a transaction."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await run(connection, "SET work_mem = '8MB'", "CREATE TEMP TABLE scratch (a int)")
        driver = await driver_of(connection)
        await driver.execute("DISCARD ALL")
        assert await driver.fetchval("SELECT current_setting('work_mem')") == "4MB"
        assert await driver.fetchval("SELECT to_regclass('scratch')::text") is None
        async with driver.transaction():
            with pytest.raises(Exception, match="cannot run inside a transaction block"):
                await driver.execute("DISCARD ALL")


async def test_the_driver_resets_its_session(engine: AsyncEngine) -> None:
    """Asyncpg's reset() gives back locks, closes cursors and forgets parameters."""
    async with engine.connect() as one, engine.connect() as two:
        driver = await driver_of(one)
        await driver.execute("SET work_mem = '8MB'")
        await driver.fetchval("SELECT pg_advisory_lock(4)")
        await driver.reset()
        assert await driver.fetchval("SHOW work_mem") == "4MB"
        assert await value(two, "SELECT pg_try_advisory_lock(4)") is True


async def test_a_role_is_a_transactions_own(engine: AsyncEngine) -> None:
    """SET LOCAL ROLE takes rights away until the COMMIT; others keep theirs."""
    async with engine.connect() as one, engine.connect() as two:
        await run(one, "SET LOCAL ROLE tenant")
        assert await value(one, "SELECT current_user") == "tenant"
        assert await value(two, "SELECT current_user") != "tenant"
        assert await code_of(one, "SELECT name FROM author") == "42501"
        await one.rollback()
        await add(one, "a")


async def test_row_security_shows_a_tenant_its_own(engine: AsyncEngine) -> None:
    """The tenant of each transaction is a parameter; one connection serves many tenants."""
    async with engine.connect() as one, engine.connect() as two:
        for tenant in ("x", "y", "x"):
            for connection in (one, two):
                await run(connection, "SET LOCAL ROLE tenant")
                choose = "SELECT set_config('app.tenant', :tenant, true)"
                insert = "INSERT INTO note (tenant) VALUES (:tenant)"
                await run(connection, choose, insert, tenant=tenant)
                savepoint = await connection.begin_nested()
                assert await code_of(connection, insert, tenant="z") == "42501"
                await savepoint.rollback()
                assert set(await rows(connection, "SELECT tenant FROM note")) == {tenant}
                await connection.commit()
        assert await value(one, "SELECT count(*) FROM note") == 6
        await run(one, "SET LOCAL ROLE tenant")
        assert await value(one, "SELECT count(*) FROM note") == 0


async def test_a_role_of_the_session_lasts(engine: AsyncEngine) -> None:
    """SET ROLE outlives transactions, and RESET ROLE ends it; writes are made under it."""
    async with engine.connect() as connection:
        await run(connection, "SET ROLE tenant", "SET app.tenant = 'x'")
        await connection.commit()
        await run(connection, "INSERT INTO note (tenant) VALUES ('x')")
        await connection.commit()
        assert await code_of(connection, "SELECT 1 FROM author") == "42501"
        await connection.rollback()
        await run(connection, "RESET ROLE")
        await connection.commit()
        assert await value(connection, "SELECT current_user = session_user") is True


async def test_a_function_has_parameters_of_its_own(engine: AsyncEngine) -> None:
    """SET in a function's definition ends with the call."""
    async with engine.begin() as connection:
        await run(
            connection,
            "CREATE FUNCTION mem() RETURNS text LANGUAGE sql SET work_mem = '3MB' "
            "AS $$ SELECT current_setting('work_mem') $$",
        )
        assert await value(connection, "SELECT mem()") == "3MB"
        assert await value(connection, "SHOW work_mem") == "4MB"


async def test_a_parameter_is_its_connections_own(engine: AsyncEngine) -> None:
    """SET is not seen by another connection."""
    async with engine.connect() as one, engine.connect() as two:
        await one.execute(text("SET search_path = pg_catalog, public"))
        assert await value(one, "SHOW search_path") == "pg_catalog, public"
        assert await value(two, "SHOW search_path") == '"$user", public'
        assert await value(one, "SELECT current_setting('search_path')") == "pg_catalog, public"


async def test_a_parameter_goes_with_a_rollback(engine: AsyncEngine) -> None:
    """SET within a transaction that is rolled back never was."""
    async with engine.connect() as connection:
        await connection.execute(text("SET work_mem = '8MB'"))
        await connection.commit()
        await connection.execute(text("SET work_mem = '9MB'"))
        await connection.rollback()
        assert await value(connection, "SHOW work_mem") == "8MB"


async def test_set_local_ends_with_its_transaction(engine: AsyncEngine) -> None:
    """SET LOCAL is over at the COMMIT, after writes too."""
    async with engine.connect() as connection:
        await connection.execute(text("SET LOCAL work_mem = '9MB'"))
        await add(connection, "a")
        assert await value(connection, "SHOW work_mem") == "9MB"
        await connection.commit()
        assert await value(connection, "SHOW work_mem") == "4MB"


@pytest.mark.parametrize("is_local", [True, False])
async def test_set_config_is_as_local_as_it_says(engine: AsyncEngine, is_local: bool) -> None:
    """A parameter of the application's own, as row security uses it, by bound values."""
    async with engine.connect() as connection:
        await connection.execute(
            text("SELECT set_config('app.tenant', :tenant, :local)"),
            {"tenant": "o'neill", "local": is_local},
        )
        assert await value(connection, "SELECT current_setting('app.tenant')") == "o'neill"
        await connection.commit()
        after = await value(connection, "SELECT current_setting('app.tenant', true)")

    assert (after or "") == ("" if is_local else "o'neill")


async def test_a_parameter_goes_with_a_savepoint(engine: AsyncEngine) -> None:
    """ROLLBACK TO brings back what a parameter was."""
    async with engine.connect() as connection:
        await connection.execute(text("SET LOCAL work_mem = '8MB'"))
        savepoint = await connection.begin_nested()
        await connection.execute(text("SET LOCAL work_mem = '9MB'"))
        await savepoint.rollback()
        assert await value(connection, "SHOW work_mem") == "8MB"
