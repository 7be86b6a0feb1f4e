"""Sessions of the ORM."""

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import joinedload, selectinload

from tests.testing.conformance.authors import Author, Book, gather_all, names

TITLES = ("one", "two")


@pytest.fixture
def sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Give a maker of sessions, whose objects expire at a commit."""
    return async_sessionmaker(engine)


Sessions = async_sessionmaker[AsyncSession]


async def test_relationships_are_written_and_loaded(sessions: Sessions) -> None:
    """By selectinload and joinedload, in a session of its own each."""
    async with sessions.begin() as session:
        session.add(Author(name="a", books=[Book(title=title) for title in TITLES]))
        session.add(Author(name="b"))
    for load in (selectinload, joinedload):
        async with sessions() as session:
            statement = select(Author).options(load(Author.books)).order_by(Author.id)
            authors = (await session.scalars(statement)).unique().all()
            assert [[book.title for book in author.books] for author in authors] == [[*TITLES], []]


async def test_objects_are_refreshed_after_a_commit(sessions: Sessions) -> None:
    """An expired object shows what another session has committed meanwhile."""
    async with sessions() as one, sessions() as two:
        author = Author(name="a")
        one.add(author)
        await one.commit()
        await two.execute(update(Author).values(name="b"))
        await two.commit()
        await one.refresh(author)
        assert author.name == "b"
        await one.rollback()
        await one.refresh(author, ["books"])
        assert author.books == []


async def test_a_failed_flush_needs_a_rollback(sessions: Sessions, engine: AsyncEngine) -> None:
    """After it the session is as good as new."""
    async with sessions() as session:
        session.add_all([Author(name="a"), Author(name="a")])
        with pytest.raises(IntegrityError):
            await session.flush()
        await session.rollback()
        session.add(Author(name="a"))
        await session.commit()

    assert await names(engine) == ["a"]


async def test_a_commit_that_fails_leaves_the_session_usable(
    sessions: Sessions, engine: AsyncEngine
) -> None:
    """A deferred constraint fails the COMMIT; after a rollback the session goes on."""
    async with sessions() as session:
        session.add(Book(title="x", author_id=99))
        with pytest.raises(IntegrityError):
            await session.commit()
        await session.rollback()
        session.add(Author(name="a"))
        await session.commit()

    assert await names(engine) == ["a"]


async def test_rows_are_changed_in_bulk(sessions: Sessions) -> None:
    """UPDATE and DELETE by the ORM tell how many rows they met."""
    async with sessions.begin() as session:
        session.add_all([Author(name=name) for name in "abc"])
    async with sessions.begin() as session:
        shout = update(Author).where(Author.name > "a").values(name=Author.name + "!")
        changed = await session.execute(shout.returning(Author.id))
        assert len(changed.all()) == 2
        await session.execute(delete(Author).where(Author.name == "a"))
    async with sessions() as session:
        assert await session.scalar(select(func.count()).select_from(Author)) == 2


async def test_sessions_of_many_tasks_do_not_mix(sessions: Sessions) -> None:
    """Each has its own identity map and its own transaction."""

    async def work(number: int) -> int:
        async with sessions.begin() as session:
            author = Author(name=str(number))
            session.add(author)
            await session.flush()
            found = await session.get(Author, author.id)
            assert found is author
            return author.id

    assert len(set(await gather_all(15, work))) == 15


async def test_lazy_work_of_a_sync_function_runs(sessions: Sessions) -> None:
    """run_sync() loads what an attribute asks for."""
    async with sessions.begin() as session:
        session.add(Author(name="a", books=[Book(title="one")]))
    async with sessions() as session:
        author = (await session.scalars(select(Author))).one()
        titles = await session.run_sync(lambda _: [book.title for book in author.books])
        assert titles == ["one"]
