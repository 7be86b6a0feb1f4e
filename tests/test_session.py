"""The end of a transaction costs no more than its wait."""

import asyncio
from typing import Any

import anyio
import pytest
from sqlalchemy import text

from stillroom.manager import DatabaseSessionManager
from tests.test_manager import Base, Jar, make_commits_slow


async def test_the_wait_for_a_commit_does_not_spin(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anyio repeats a cancellation at each turn of the loop: the wait is shielded from that."""
    manager = DatabaseSessionManager(Base.metadata)
    manager.init(database_url)
    async with manager.connect() as connection:
        await manager.create_all(connection)
    await make_commits_slow(manager, 1.0)
    turns = 0
    loop = asyncio.get_running_loop()
    call_soon: Any = loop.call_soon

    def count(*args: Any, **kwargs: Any) -> Any:
        nonlocal turns
        turns += 1
        return call_soon(*args, **kwargs)

    with anyio.move_on_after(0.2):
        async with manager.begin() as session:
            await Jar.create(session, name="waited for")
            monkeypatch.setattr(loop, "call_soon", count)
    monkeypatch.undo()

    async with manager.session() as session:
        assert await session.scalar(text("SELECT count(*) FROM jars")) == 1
    assert turns < 200
    pools: list[Any] = [manager.engine.pool, manager.read_engine.pool]
    assert [pool.checkedout() for pool in pools] == [0, 0]
    await manager.close()
