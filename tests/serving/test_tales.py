"""`stillroom serve` writes nothing of what clients send, and nothing of the database's URL."""

import textwrap
from pathlib import Path

import pytest

from stillroom.postgres import Cluster
from tests.serving.conftest import ServeFactory

CANARY = "zaunkoenig"

ROUTES = """
    from fastapi import APIRouter, FastAPI

    server = FastAPI()
    trees = APIRouter(prefix="/trees")
    forest = APIRouter()

    @server.get("/birds/{name}")
    async def bird(name: str) -> int:
        return 1

    @trees.get("/{name}/nests")
    async def nests(name: str) -> int:
        return 2

    forest.include_router(trees, prefix="/forest")
    server.include_router(forest, prefix="/api")

    @server.get("/numbers/{name}")
    async def number(name: str) -> int:
        return int(name)
"""

FAILING = """
    from contextlib import asynccontextmanager
    from fastapi import FastAPI
    from sqlalchemy import text
    from stillroom.manager import DatabaseSessionManager

    manager = DatabaseSessionManager()

    @asynccontextmanager
    async def open_jars(app):
        manager.init({url!r})
        async with manager.begin() as session:
            await session.execute(text("SELECT CAST(CAST(:it AS text) AS int)"), {{"it": {it!r}}})
        yield

    server = FastAPI(lifespan=open_jars)
"""


def test_the_access_log_names_routes(serve: ServeFactory, service: Path) -> None:
    """Neither a path nor a query is shown, for they may name a person; a 404 has no route."""
    (service / "birds.py").write_text(textwrap.dedent(ROUTES))
    running = serve("birds:server", "--access-log")

    assert running.get(f"/birds/{CANARY}?mate={CANARY}") == 1
    running.says(r'"GET /birds/\{name\} HTTP/1\.1" 200')
    assert running.get(f"/api/forest/trees/{CANARY}/nests") == 2
    running.says(r'"GET /api/forest/trees/\{name\}/nests HTTP/1\.1" 200')
    assert running.get(f"/nests/{CANARY}") == {"detail": "Not Found"}
    running.says(r'"GET \(no route\) HTTP/1\.1" 404')
    assert CANARY not in running.output


def test_an_error_of_an_application_that_has_no_handlers_is_redacted(
    serve: ServeFactory, service: Path
) -> None:
    """The server itself sees to that, whatever the application installs."""
    (service / "birds.py").write_text(textwrap.dedent(ROUTES))
    running = serve("birds:server")

    with pytest.raises(ValueError, match="Expecting value"):  # the answer is plain text
        running.get(f"/numbers/{CANARY}")
    running.says("ValueError: …")
    assert CANARY not in running.output


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
def test_a_start_that_fails_is_redacted(
    serve: ServeFactory, service: Path, cluster: Cluster, driver: str
) -> None:
    """The traceback of a lifespan has frames, SQLSTATE and statement, and no value."""
    url = cluster.url("postgres").replace("postgresql://", f"postgresql+{driver}://")
    (service / "jars.py").write_text(textwrap.dedent(FAILING).format(url=url, it=CANARY))
    running = serve("jars:server")

    assert running.ends() == 1
    assert "SQLSTATE 22P02" in running.output
    assert "await session.execute(text" in running.output
    assert CANARY not in running.output.replace(f'"it": {CANARY!r}', "")


def test_an_import_that_fails_is_redacted(serve: ServeFactory, service: Path) -> None:
    """What a module looks up at its import may be a secret of the environment."""
    (service / "dark.py").write_text("import os\n{}[os.environ['PWD'] + '/secret']\n")
    running = serve("dark:server")

    assert running.ends() == 1
    assert "dark could not be imported: KeyError: …" in running.output
    assert "/secret" not in running.output.replace("'/secret'", "")
