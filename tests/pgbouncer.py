"""PgBouncer in transaction mode, started by a test: Debian's own, and a later one beside it.

The later one is Debian trixie's, with all libraries that it needs: ``scripts/pgbouncer`` gets it.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from sqlalchemy import URL, make_url

from tests.conftest import require, require_debian
from tests.processes import eventually

FOLDER = Path(__file__).parents[1] / ".cache" / "pgbouncer"
"""Where `scripts/pgbouncer` puts the later one."""

DEBIAN = "PgBouncer of Debian"
LATER = "PgBouncer 1.24"
FORGETFUL = "PgBouncer 1.24 that keeps no statements"
KINDS: Mapping[str, Mapping[str, str]] = {
    DEBIAN: {},
    LATER: {"max_prepared_statements": "100"},
    FORGETFUL: {"max_prepared_statements": "0"},
}
"""What there is, with its settings."""

PORT = 5432
SESSIONS = 4
"""How many sessions of PostgreSQL it has for a database."""


class PgBouncer:
    """A PgBouncer before one PostgreSQL; `folder` has its socket, at PostgreSQL's own port."""

    def __init__(
        self, command: list[str], folder: Path, server: URL, settings: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self._command = [*command, "-q", str(folder / "pgbouncer.ini")]
        self._user: int | None = None
        if os.geteuid() == 0:  # PgBouncer refuses root, and the server's socket is nobody's then
            os.chown(folder, _NOBODY, _NOBODY)
            self._user = _NOBODY
        chosen = {
            "listen_port": PORT,
            "unix_socket_dir": folder,
            "logfile": folder / "log",
            "pool_mode": "transaction",
            "auth_type": "any",
            "admin_users": "postgres",
            "default_pool_size": SESSIONS,
            "max_client_conn": 200,
            **settings,
        }
        host, port = server.query["host"], server.query["port"]
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={host} port={port} user=postgres\n[pgbouncer]\n"
            + "\n".join(f"{name} = {value}" for name, value in chosen.items())
        )
        self._process = self._start()

    def url(self, direct: str, driver: str = "asyncpg") -> str:
        """Return the URL of a database through it, from the one of PostgreSQL itself."""
        name = make_url(direct).database
        return f"postgresql+{driver}://postgres@/{name}?host={self.folder}&port={PORT}"

    def restart(self) -> None:
        """Kill it, and start it anew."""
        self.kill()
        self._process = self._start()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            self._command,
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
        )
        assert eventually(lambda: self._answers() or process.poll() is not None)
        assert process.poll() is None, (self.folder / "log").read_text()
        return process

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(
                f"host={self.folder} port={PORT} user=postgres dbname=pgbouncer"
            ).close()
            return True
        return False


@contextmanager
def run_pgbouncer(
    kind: str, direct: str, settings: Mapping[str, str] | None = None
) -> Generator[PgBouncer]:
    """Run a PgBouncer of `KINDS` before the PostgreSQL of a URL, until the end of the block."""
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir="/tmp"))
    try:
        command = _debian_command() if kind == DEBIAN else _later_command(folder / "later")
        chosen = {**KINDS[kind], **(settings or {})}
        pgbouncer = PgBouncer(command, folder, make_url(direct), chosen)
        try:
            yield pgbouncer
        finally:
            pgbouncer.kill()
    finally:
        shutil.rmtree(folder)


def _debian_command() -> list[str]:
    found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    return [found] if found else require_debian("PgBouncer", "pgbouncer")


def _later_command(copied: Path) -> list[str]:
    if not (FOLDER / "usr").exists():
        require("a PgBouncer that keeps prepared statements", "scripts/pgbouncer")
    programs = FOLDER
    if os.geteuid() == 0:  # another user might not get to where the working tree is
        programs = shutil.copytree(FOLDER, copied, symlinks=True)
    loader = next(programs.glob("usr/lib/*/ld-linux-*.so.*"))
    libraries = str(loader.parent)
    return [str(loader), "--library-path", libraries, f"{programs}/usr/sbin/pgbouncer"]


_NOBODY = 65534
