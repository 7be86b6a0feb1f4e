"""The same small test, many times: a commit, and a read in another session."""

import asyncio
import os

import pytest
from models import Note
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

TESTS = int(os.environ.get("NOTES_TESTS", "3"))
PAUSE = float(os.environ.get("NOTES_PAUSE", "0"))
ISOLATED = os.environ.get("NOTES_ISOLATED", "yes") == "yes"


@pytest.mark.parametrize("number", range(TESTS))
async def test_note(number: int, sessions: async_sessionmaker[AsyncSession]) -> None:
    """A note that was committed is found; where tests are kept apart its title is free again."""
    title = "the only one" if ISOLATED else f"number {number}"
    async with sessions() as session:
        session.add(Note(title=title))
        await session.commit()
    async with sessions() as session:
        found = await session.scalars(select(Note).where(Note.title == title))
        assert found.one().title == title
    if PAUSE:
        await asyncio.sleep(PAUSE)
