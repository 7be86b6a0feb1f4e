"""Rows that are locked, and writes that wrote nothing: plain reads pass them."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.testing.conformance.authors import add, code_of, names, rows, run, value


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM author FOR UPDATE",
        "SELECT name FROM author WHERE name = 'a' FOR NO KEY UPDATE",
        "SELECT name FROM author FOR SHARE",
        "UPDATE author SET name = 'b' WHERE false",
        "DELETE FROM author WHERE name = 'b'",
        "SELECT nextval('author_id_seq')",
    ],
)
async def test_who_has_written_nothing_holds_up_no_read(
    engine: AsyncEngine, statement: str
) -> None:
    """Not in the same task either; what the reader's error undoes is its own."""
    async with engine.begin() as connection:
        await add(connection, "a")
    async with engine.connect() as one, engine.connect() as two:
        await run(one, statement)
        assert await rows(two, "SELECT name FROM author") == ["a"]
        assert await code_of(two, "SELECT 1 / 0 FROM author") == "22012"
        await two.rollback()
        await run(one, "UPDATE author SET name = 'c'")
        await one.commit()
        assert await value(two, "SELECT name FROM author WHERE name = 'c'") == "c"

    assert await names(engine) == ["c"]


async def test_a_lock_outlives_what_others_read(engine: AsyncEngine) -> None:
    """The work that follows is the holder's, and is rolled back with it."""
    async with engine.begin() as connection:
        await add(connection, "a")
    async with engine.connect() as one, engine.connect() as two:
        await run(one, "SELECT * FROM author FOR UPDATE")
        await run(two, "SELECT name FROM author")
        await add(one, "b")
        await one.rollback()
        assert await rows(two, "SELECT name FROM author") == ["a"]
