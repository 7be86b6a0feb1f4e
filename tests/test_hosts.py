"""Several hosts in the URL: two real servers, of which the second follows the first."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from stillroom.engine import EngineSettings
from stillroom.errors import DatabaseUnavailableError
from stillroom.manager import DatabaseSessionManager
from stillroom.postgres import Cluster, temporary_cluster
from stillroom.postgres.binaries import find_programs
from tests.conftest import DRIVERS
from tests.processes import eventually

REPLICATES = {"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"}


@dataclass(frozen=True)
class Pair:
    """A primary and its hot standby."""

    primary: Cluster
    standby: Cluster

    def url(self, driver: str, *clusters: Cluster, session: str = "any") -> str:
        """Return the URL that names these clusters in this order."""
        hosts = "&".join(f"host={folder(one)}:5432" for one in clusters)
        return f"postgresql+{driver}://postgres@/postgres?{hosts}&target_session_attrs={session}"


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Run a primary, and a standby made of it by pg_basebackup."""
    with temporary_cluster(settings=REPLICATES) as primary:
        copied = Path(tempfile.mkdtemp(prefix="stillroom-standby-"))
        try:
            programs = find_programs()
            subprocess.run(
                [
                    programs.path("pg_basebackup"),
                    *("--pgdata", str(copied / "data"), "--write-recovery-conf"),
                    *("--checkpoint", "fast", "--no-sync", "--dbname", primary.url("postgres")),
                ],
                check=True,
                env={"PATH": os.environ["PATH"]},
            )
            if os.geteuid() == 0:
                give_to_server(copied / "data", primary.data)
            with temporary_cluster(settings=REPLICATES, copy_of=copied / "data") as standby:
                yield Pair(primary, standby)
        finally:
            shutil.rmtree(copied)


def give_to_server(data: Path, like: Path) -> None:
    """Give all files to the user who owns those of another data folder."""
    owner = like.stat()
    for file in [data, *data.rglob("*")]:
        os.chown(file, owner.st_uid, owner.st_gid)


def folder(cluster: Cluster) -> str:
    """Return the folder of a cluster's socket."""
    return str(make_url(cluster.url("postgres")).query["host"])


async def asked(
    url: str, *, read_only: bool = False, settings: EngineSettings | None = None
) -> bool:
    """Say whether a session has met a standby."""
    manager = DatabaseSessionManager()
    manager.init(url, settings=settings)
    try:
        async with manager.session(read_only=read_only) as session:
            return bool(await session.scalar(text("SELECT pg_is_in_recovery()")))
    finally:
        await manager.close()


@pytest.mark.parametrize("driver", DRIVERS)
async def test_writes_go_to_the_primary_and_on_when_it_is_another(pair: Pair, driver: str) -> None:
    """Whatever the order; when the first is dead and the other promoted, they go on there."""
    url = pair.url(driver, pair.standby, pair.primary, session="read-write")
    manager = DatabaseSessionManager()
    manager.init(url, settings=EngineSettings(connect_timeout=2, ping_after=0))
    insert = text("INSERT INTO jars VALUES (1)")
    async with manager.begin() as session:
        await session.execute(text("CREATE TABLE jars (id integer)"))
        await session.execute(insert)
    async with manager.session(read_only=True) as session:  # a read-only connection is one, too
        assert await session.scalar(text("SELECT count(*) FROM jars")) == 1
    with psycopg.connect(pair.standby.url("postgres"), autocommit=True) as standby:
        assert eventually(lambda: has_jars(standby))
        pair.primary.stop()
        with pytest.raises((DBAPIError, DatabaseUnavailableError)):
            await one(manager, insert)  # the old connection, or no server that takes writes
        with pytest.raises(DatabaseUnavailableError, match=r"(?s)host .*, .*: .*; .*5432: "):
            await one(manager, insert)
        standby.execute("SELECT pg_promote()")

    await one(manager, insert)
    async with manager.session(read_only=True) as session:
        assert await session.scalar(text("SELECT count(*) FROM jars")) == 2
    await manager.close()


MEETS_STANDBY = {
    "any": False,
    "primary": False,
    "read-write": False,
    "standby": True,
    "read-only": True,
    "prefer-standby": True,
}


@pytest.mark.parametrize("driver", DRIVERS)
async def test_each_session_meets_the_server_that_was_asked_for(pair: Pair, driver: str) -> None:
    """The primary is named first; a read session is read-only on any server, and asks the same."""
    for session, is_standby in MEETS_STANDBY.items():
        url = pair.url(driver, pair.primary, pair.standby, session=session)
        assert await asked(url) == is_standby, session
        assert await asked(url, read_only=True) == is_standby, session
    url = pair.url(driver, pair.standby, pair.primary, session="prefer-standby")
    pair.standby.stop()
    assert not await asked(url)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_host_that_is_silent_keeps_nobody_from_the_next(pair: Pair, driver: str) -> None:
    """Each host has the time of one connection; asyncpg's own is one for all of them."""
    url = pair.url(driver, pair.primary, pair.standby)
    settings = EngineSettings(connect_timeout=2, pool_timeout=10)
    pid = pair.primary.pids[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert await asked(url, settings=settings)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def one(manager: DatabaseSessionManager, statement: object) -> None:
    """Run one statement and commit it."""
    async with manager.begin() as session:
        await session.execute(statement)  # type: ignore[call-overload]


def has_jars(connection: "psycopg.Connection[tuple[object, ...]]") -> bool:
    """Say whether the standby has what the primary has written."""
    row = connection.execute("SELECT to_regclass('jars')").fetchone()
    return row is not None and row[0] is not None
