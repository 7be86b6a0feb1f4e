"""The canary: a process beside the tests that finds what the sandbox has not rolled back."""

import pytest

from tests.projects import Project

TESTS = """
import asyncio
import subprocess
import sys

import pytest
from models import Session, User
from sqlalchemy import text

WRITE = '''
import asyncio, sys
import asyncpg


async def write():
    connection = await asyncpg.connect(sys.argv[1])
    await connection.execute("INSERT INTO users (email) VALUES ('past the sandbox')")
    await connection.close()


asyncio.run(write())
'''


def run(sql, email="a"):
    async def work():
        async with Session() as session:
            session.add(User(email=email))
            await session.execute(text(sql))
            await session.commit()

    asyncio.run(work())


def test_rows_and_sequences():
    run("SELECT nextval('users_id_seq')")


def test_tables_types_and_roles():
    run("CREATE TYPE mood AS ENUM ('sad')")
    run("CREATE INDEX ON users (email)", "b")
    run("CREATE ROLE somebody", "c")


def test_large_objects():
    run("SELECT lo_from_bytea(0, 'abc')")


def test_locks():
    run("SELECT pg_advisory_lock(1)")


def test_nothing_but_a_lock():
    async def work():
        async with Session() as session:
            await session.execute(text("SELECT pg_advisory_lock(1)"))

    asyncio.run(work())


@pytest.fixture(scope="module")
def emptied():
    run("TRUNCATE users RESTART IDENTITY")
    run("SELECT pg_advisory_lock(2)", "c")


def test_wider_scope(emptied):
    run("SELECT 1", "b")


def test_wider_scope_again(emptied):
    run("SELECT 1", "b")
"""

ESCAPE = """

def test_escape(stillroom_url):
    subprocess.run([sys.executable, "-c", WRITE, stillroom_url], check=True)


def test_after():
    run("SELECT 1")
"""

BREAKING = """
from stillroom.testing.wire.backend import Backend

send_later = Backend.send_later


def send_another(self, data, *others):
    return send_later(self, data.replace({sent}, {instead}), *others)


Backend.send_later = send_another
"""
COMMITTING = BREAKING.format(sent=b"ROLLBACK;", instead=b"COMMIT  ;")
DRAWING = BREAKING.format(sent=b"SELECT setval(", instead=b"SELECT concat(")


def test_a_sandbox_leaves_nothing(project: Project) -> None:
    """What tests do in it, of all kinds and in wider scopes, is gone in the eyes of a stranger."""
    project.write(test_project=TESTS)

    outcome = project.run("--stillroom-canary")

    assert outcome.counts == "7 passed", outcome.output
    unread = "and could not always read the rows of public.users: an open transaction"
    assert f"The canary has looked 7 times, {unread}" in outcome.output


def test_what_goes_past_the_sandbox_stops_the_run(project: Project) -> None:
    """The error is that of the test's teardown; it names what has changed and the marker."""
    project.write(test_project=TESTS + ESCAPE)

    outcome = project.run("--stillroom-canary", "-k", "rows or escape or after")

    assert outcome.counts == "2 passed, 6 deselected, 1 error", outcome.output
    assert "ERROR at teardown of test_escape" in outcome.output
    assert "the rows of public.users: 0 before, 1 now" in outcome.output
    assert "the sequence public.users_id_seq: 0 before, 1 now" in outcome.output
    assert '@pytest.mark.stillroom(isolation="clone")' in outcome.output
    assert "stopping at a test that has left something" in outcome.output


@pytest.mark.parametrize(
    ("conftest", "processes", "changed"),
    [
        (COMMITTING, "2", "the rows of public.users: 0 before, 1 now"),
        (DRAWING, "0", "the sequence public.users_id_seq: 0 before, 2 now"),
    ],
    ids=["commits", "leaves sequences"],
)
def test_a_sandbox_that_is_broken_is_found_out(
    project: Project, conftest: str, processes: str, changed: str
) -> None:
    """The first test after which something is left is the one that fails, in each process."""
    project.write(conftest=conftest, test_project=TESTS)

    outcome = project.run("--stillroom-canary", "-k", "rows", "-n", processes)

    assert outcome.counts.endswith("1 error"), outcome.output
    assert changed in outcome.output


GOING_ON = """
import threading

from stillroom.testing.canary import Canary
from test_project import run

look = Canary.look


def write_and_look(self, *, at_rest, has_locks=False):
    if at_rest:
        thread = threading.Thread(target=run, args=["SELECT 1", "late"])
        thread.start()
        thread.join()
    return look(self, at_rest=at_rest, has_locks=has_locks)


Canary.look = write_and_look
"""


def test_a_thread_that_goes_on_has_left_nothing(project: Project) -> None:
    """It writes while the canary looks, and what it draws from a sequence is rolled back later."""
    project.write(conftest=GOING_ON, test_project=TESTS)

    outcome = project.run("--stillroom-canary", "-k", "large or locks")

    assert outcome.counts.startswith("2 passed"), outcome.output
    assert "The canary has looked" in outcome.output
