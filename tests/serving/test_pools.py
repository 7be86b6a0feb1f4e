"""`stillroom serve` starts no more connections than PostgreSQL has."""

import contextlib
import http.client
import socket
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

from stillroom.postgres import temporary_cluster
from tests.processes import eventually
from tests.serving.conftest import Serve, ServeFactory

ROOM = 4
"""What is left of max_connections: 3 are reserved, and 3 kept for a migration and psql."""

APPLICATION = """
    import os
    from fastapi import APIRouter, Depends, FastAPI
    from sqlalchemy import text
    from stillroom import DatabaseSessionManager, EngineSettings
    from stillroom.fastapi import SessionDependency, UnitOfWorkRoute, install, lifespan

    manager = DatabaseSessionManager()
    router = APIRouter(route_class=UnitOfWorkRoute)

    @router.get("/wait")
    @router.post("/wait")
    async def wait(db=Depends(SessionDependency(manager))):
        await db.execute(text("SELECT pg_advisory_xact_lock_shared(1)"))
        return os.getpid()

    size = os.environ.get("SIZE")
    settings = EngineSettings(pool_size=int(size)) if size else None
    server = FastAPI(lifespan=lifespan(manager, lambda: os.environ["DB_CONFIG"], settings=settings))
    install(server, manager)
    server.include_router(router)
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """Give a folder with an application that has a database."""
    folder = tmp_path / "service"
    folder.mkdir()
    (folder / "run.py").write_text(textwrap.dedent(APPLICATION))
    return folder


def test_all_workers_together_leave_room_for_others(serve: ServeFactory) -> None:
    """Every pool is full at once, and whoever migrates or looks still gets a connection."""
    with temporary_cluster(settings={"max_connections": str(ROOM + 6)}) as cluster:
        running = serve("--workers", "2", DB_CONFIG=cluster.url("postgres"))
        running.says(r"(?s)Each of the 2 workers has pools of 1 instead of 10 .*Serving run:server")
        assert running.output.count("instead of 10") == 1
        with (
            psycopg.connect(cluster.url("postgres"), autocommit=True) as database,
            ThreadPoolExecutor(60) as pool,
        ):
            database.execute("SELECT pg_advisory_lock(1)")
            asking = [pool.submit(_ask, running, "GET" if n % 2 else "POST") for n in range(60)]
            assert eventually(lambda: _connections(database) == ROOM)
            psycopg.connect(cluster.url("postgres")).close()
            database.execute("SELECT pg_advisory_unlock(1)")
            statuses = {one.result(30) for one in asking}
        assert statuses <= {200, 503}
        assert 200 in statuses
        assert running.stop() == 0, running.output


def test_pools_that_do_not_fit_start_nothing(serve: ServeFactory) -> None:
    """The line has the numbers; the same workers with a size that fits serve."""
    with temporary_cluster(settings={"max_connections": str(ROOM + 6)}) as cluster:
        url = cluster.url("postgres")
        for arguments, environ, complaint in (
            (["--workers", "3"], {}, "3 workers x 2 pools x 1 connections are more than"),
            (["--workers", "2"], {"SIZE": "2"}, "2 workers x 2 pools x 2 connections are more"),
            ([], {"STILLROOM_WORKERS": "3"}, "3 workers x 2 pools x 1 connections are more than"),
        ):
            refused = serve(*arguments, DB_CONFIG=url, **environ)
            assert refused.ends() == 1
            assert len(refused.output.splitlines()) == 1, refused.output
            refused.says(
                rf"^stillroom: The application did not start: ConfigurationError: {complaint}.*"
                r"max_connections is 10, of which 3 are reserved and 3 kept for"
            )
        running = serve("--workers", "2", DB_CONFIG=url, SIZE="1")
        assert _ask(running, "GET") == 200
        assert running.stop() == 0, running.output


def test_a_database_that_is_away_is_no_reason_not_to_start(serve: ServeFactory) -> None:
    """Its clients are told to come back, until it comes."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"postgresql://nobody@127.0.0.1:{bound.getsockname()[1]}/nowhere"
        running = serve(DB_CONFIG=url)
        assert _ask(running, "GET") == 503
    running.says("The pools were not compared with what PostgreSQL has")
    assert running.stop() == 0, running.output


def _ask(running: Serve, method: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", running.port(), timeout=30)
    with contextlib.closing(connection):
        connection.request(method, "/wait")
        return connection.getresponse().status


def _connections(database: psycopg.Connection[Any]) -> int:
    row = database.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'stillroom'"
    ).fetchone()
    return int(row[0]) if row else 0
