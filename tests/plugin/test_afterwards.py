"""What lives longer than the run of tests."""

import socket

from tests.projects import Project

HAUNTED = """
import asyncio
import threading

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

engine = create_async_engine("postgresql+asyncpg://a:b@127.0.0.1:{port}/prod", poolclass=NullPool)


async def ask():
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))


def haunt():
    while True:
        try:
            asyncio.run(ask())
        except Exception:
            pass


def test_it_begins(stillroom_refusals):  # of what the thread is at when the test ends
    asyncio.run(ask())
    threading.Thread(target=haunt, daemon=True).start()
"""


def test_a_thread_that_outlives_the_run_reaches_nothing(project: Project) -> None:
    """From the first test to the end of the process no engine goes where its URL says."""
    with socket.create_server(("127.0.0.1", 0)) as trap:
        project.write(test_project=HAUNTED.format(port=trap.getsockname()[1]))

        outcome = project.run("-W", "ignore")

        assert outcome.counts == "1 passed", outcome.output
        trap.setblocking(False)
        try:
            trap.accept()
        except BlockingIOError:
            reached = False
        else:
            reached = True
    assert not reached
