"""What the faults are made to: a PostgreSQL that can be killed, and servers in front of it."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote
from uuid import uuid4

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from stillroom.postgres import Cluster
from tests.faults.answer import Answer
from tests.faults.load import Load, answers_to
from tests.laws.conftest import create_tables
from tests.processes import eventually

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "service"
PASSWORD = f"password{uuid4().hex[:12]}"
"""What no log may show; PostgreSQL asks for none."""


class Database:
    """A PostgreSQL at an address that stays, of which SIGKILL takes no committed data."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self._address = folder / "socket"
        self._cluster = Cluster(folder / "data", settings={"fsync": "off", **settings})
        self.start()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._cluster.start()
        self._address.symlink_to(str(make_url(self._cluster.url("postgres")).query["host"]))

    def stop(self) -> None:
        """Stop it; what is under way is cut."""
        self._address.unlink()
        self._cluster.stop()

    def kill(self) -> None:
        """End its main process at once, so that all others follow."""
        os.kill(self._cluster.pids[0], signal.SIGKILL)
        self.stop()

    def url(self, name: str = "postgres") -> str:
        """Return the URL of a database, without a driver."""
        host = quote(str(self._address), safe="")
        return f"postgresql://postgres:{PASSWORD}@/{name}?host={host}&port=5432"

    def create(self) -> str:
        """Create an empty database, and return its URL."""
        name = f"faults_{uuid4().hex}"
        self._cluster.create_database(name)
        return self.url(name)


class Server:
    """A `stillroom serve`, from outside."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self._process = process
        self._log = log
        assert eventually(lambda: self.port > 0 or process.poll() is not None, 30)
        assert process.poll() is None, log.read_text()

    @property
    def port(self) -> int:
        """Return the port, 0 as long as nobody listens."""
        said = re.search(
            r"^Serving \S+ on http://127\.0\.0\.1:(\d+), ", self._log.read_text(), re.MULTILINE
        )
        return int(said[1]) if said else 0

    @property
    def worker(self) -> int:
        """Return the pid of the process that serves."""
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text())

    @property
    def log(self) -> str:
        """Return what it has said."""
        return self._log.read_text()

    def stop(self) -> float:
        """Ask it to stop, and return after how many seconds it has."""
        begin = time.monotonic()
        self._process.terminate()
        code = self._process.wait(30)
        assert code == 0, self.log
        return time.monotonic() - begin

    def kill(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.wait()


class Stage:
    """Start what is needed, keep all logs, and note each answer that tells what was sent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.secret = f"canary{uuid4().hex[:8]}"
        self.answers = 0
        self.tales = 0
        self._logs: list[Path] = []

    @contextmanager
    def database(self, **settings: str) -> Generator[Database]:
        """Run a PostgreSQL of one's own."""
        folder = Path(tempfile.mkdtemp(prefix="faults-", dir=self.folder))
        database = Database(folder, settings)
        try:
            yield database
        finally:
            database.stop()

    @contextmanager
    def server(
        self, url: str, *, pool_size: int = 10, port: int = 0, application: str = "", **environ: str
    ) -> Generator[Server]:
        """Serve an application, that of the suite unless another is named, until the end."""
        log = self.folder / f"{uuid4().hex}.log"
        self._logs.append(log)
        program = str(Path(sys.executable).with_name("stillroom"))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [program, "serve", application or "tests.faults.app:make_app", "--port", str(port)],
                cwd=SERVICE if application else ROOT,
                stdout=output,
                stderr=output,
                env={
                    **os.environ,
                    "DB_CONFIG": url.replace("postgresql://", "postgresql+asyncpg://"),
                    "POOL_SIZE": str(pool_size),
                    **environ,
                },
            )
        server = Server(process, log)
        try:
            yield server
            if process.poll() is None:
                server.stop()
        finally:
            server.kill()

    @contextmanager
    def service(self, *, pool_size: int = 10, **settings: str) -> Generator[tuple[str, Server]]:
        """Run a PostgreSQL with the suite's tables and a server on it; give its URL, and both."""
        with self.database(**settings) as database:
            url = tables(database)
            with self.server(url, pool_size=pool_size) as server:
                yield url, server

    def ask(self, *loads: Load) -> list[Answer]:
        """Make loads, and return all answers."""
        return self.note(answers_to(*loads))

    def note(self, answers: Sequence[Answer]) -> list[Answer]:
        """Count the answers, and those that tell."""
        self.answers += len(answers)
        self.tales += sum(answer.tells for answer in answers)
        return list(answers)

    def logged(self) -> str:
        """Return what all servers have said."""
        return "\n".join(log.read_text(errors="replace") for log in self._logs)


@contextmanager
def open_stage() -> Generator[Stage]:
    """Give a stage in a folder that goes with it, and whose name is short enough for sockets."""
    folder = Path(tempfile.mkdtemp(prefix="f-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield Stage(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tables(database: Database) -> str:
    """Create a database with the suite's tables, and return its URL."""
    url = database.create()
    create_tables_of(url)
    return url


def create_tables_of(url: str) -> None:
    """Create the suite's tables in a database."""
    asyncio.run(create_tables(url))


def connect(url: str) -> "psycopg.Connection[tuple[Any, ...]]":
    """Connect to PostgreSQL itself."""
    return psycopg.connect(url, autocommit=True)


def names(url: str, table: Literal["items", "slots"] = "items") -> list[str]:
    """Return the elements that are there."""
    with connect(url) as connection:
        query = sql.SQL("SELECT name FROM {}").format(sql.Identifier(table))
        return [str(row[0]) for row in connection.execute(query).fetchall()]
