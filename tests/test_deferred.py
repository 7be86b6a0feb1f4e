"""A session whose Session is made when something asks for it, and for one answer it is not."""

from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel
from sqlalchemy import literal, select, text
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import async_session

from stillroom.json import JSONSelect
from stillroom.manager import DatabaseSessionManager


class View(BaseModel):
    """Show a number."""

    number: int


ONE = JSONSelect(select(literal(1).label("number")), View)


@pytest.fixture
async def manager(database_url: str) -> AsyncIterator[DatabaseSessionManager]:
    """Give a manager of an empty database."""
    manager = DatabaseSessionManager()
    manager.init(database_url)
    yield manager
    await manager.close()


async def test_one_answer_needs_none(manager: DatabaseSessionManager) -> None:
    """That is what deferring is for."""
    async with manager.session(read_only=True) as session:
        assert await ONE.first(session) == b'{"number":1}'
        assert not session.in_transaction()
    assert not session.is_made


async def test_a_statement_that_is_committed_with_its_answer_needs_none(
    manager: DatabaseSessionManager,
) -> None:
    """Nor is one made to see that there is nothing else to commit."""
    async with manager.session() as session:
        await session.commit_with(lambda it: it.execute(text("CREATE TABLE jars ()")))
        await session.commit()
    assert not session.is_made


@pytest.mark.parametrize("name", ["sync_session", "new", "no_autoflush", "autoflush", "bind"])
async def test_whatever_asks_for_it_makes_it(manager: DatabaseSessionManager, name: str) -> None:
    """Contract: AsyncSession goes to its Session by one name, and is found from it."""
    async with manager.session() as session:
        session.info["early"] = "before there is one"
        getattr(session, name)
        assert session.is_made
        assert async_session(session.sync_session) is session
        assert session.sync_session.info is session.info
        assert await session.scalar(text("SELECT 1")) == 1
        assert session.in_transaction()


async def test_one_that_is_made_after_the_end_is_closed(manager: DatabaseSessionManager) -> None:
    """A task that outlives its session begins nothing anew."""
    async with manager.session() as session:
        pass
    with pytest.raises(InvalidRequestError, match="permanently closed"):
        await session.scalar(text("SELECT 1"))
