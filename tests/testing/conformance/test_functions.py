"""Functions that write, called by what looks like a read."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.testing.conformance.authors import names, run

_BODY = "RETURNS int LANGUAGE sql AS 'INSERT INTO author (name) VALUES (''x'') RETURNING id'"


@pytest.mark.parametrize(
    ("made", "call"),
    [
        ([f'CREATE FUNCTION "newAuthor"() {_BODY}'], 'SELECT "newAuthor"()'),
        ([f'CREATE FUNCTION "newAuthor"() {_BODY}'], 'SELECT public."newAuthor" ( )'),
        ([f"DO $do$ BEGIN EXECUTE $$CREATE FUNCTION made() {_BODY}$$; END $do$"], "SELECT made()"),
        (
            [f"CREATE FUNCTION old() {_BODY}", "ALTER FUNCTION old RENAME TO renamed"],
            "SELECT renamed()",
        ),
        (["CREATE VIEW adding AS SELECT write_author('x') AS id"], "SELECT * FROM adding"),
        (["CREATE VIEW \"Adding\" AS SELECT write_author('x') AS id"], 'TABLE "Adding"'),
        (
            [
                "CREATE VIEW adding AS SELECT write_author('x') AS id",
                "CREATE VIEW around AS SELECT id + 1 AS more FROM adding",
            ],
            "SELECT more FROM around",
        ),
    ],
)
async def test_what_a_function_writes_is_rolled_back(
    engine: AsyncEngine, made: list[str], call: str
) -> None:
    """However it is named, made or hidden: it belongs to the transaction that has called it."""
    async with engine.begin() as connection:
        await run(connection, *made)
    async with engine.connect() as connection:
        await run(connection, call)
        await connection.rollback()
        assert await names(engine) == []
        await run(connection, call)
        await connection.commit()

    assert await names(engine) == ["x"]


async def test_a_function_whose_renaming_is_rolled_back_still_writes(engine: AsyncEngine) -> None:
    """Its earlier name is its name again."""
    async with engine.connect() as connection:
        await run(connection, "ALTER FUNCTION write_author RENAME TO other", "SELECT 1 FROM author")
        await connection.rollback()
        await run(connection, "SELECT write_author('x')")
        await connection.rollback()

    assert await names(engine) == []
