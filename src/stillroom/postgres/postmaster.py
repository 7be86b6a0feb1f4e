"""The server that works on a data folder, as its `postmaster.pid` tells.

PostgreSQL writes the file and keeps it as long as the server lives:
https://www.postgresql.org/docs/current/storage-file-layout.html
"""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

SUPERUSER = "postgres"
"""The name of the superuser: the one that dumps and tools expect."""

PORT = 5432
"""The port: it only names the socket, as each cluster has a folder of its own."""


@dataclass(frozen=True)
class Server:
    """Name a server that accepts connections: its process, its socket's folder and port."""

    pid: int
    socket_folder: Path
    port: int = PORT

    def url(self, database: str) -> str:
        """Return the URL of a database, in the form that libpq and SQLAlchemy read."""
        host = quote(str(self.socket_folder), safe="")
        return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?host={host}&port={self.port}"


def running(data: Path) -> Server | None:
    """Find the server that runs on a data folder and accepts connections, whoever started it.

    Reads `postmaster.pid` and connects to the socket named there, so that what a killed server left
    behind finds nothing. Raises PermissionError for the data folder of another user.
    """
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if len(lines) < 8 or lines[7].strip() != "ready" or not lines[4]:
        return None
    server = Server(int(lines[0]), Path(lines[4]), int(lines[3]))
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(server.socket_folder / f".s.PGSQL.{server.port}"))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
    return server


def find_postmaster(data: Path) -> int | None:
    """Return the pid of the server that works on a data folder, ready or not.

    A `postmaster.pid` that names a process which is alive, but no server on these data (pids start
    anew with a container), would keep PostgreSQL from starting: it is removed. One of a dead
    process is left to PostgreSQL.
    """
    file = data / "postmaster.pid"
    try:
        pid = int(file.read_text().split("\n", 1)[0])
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    except PermissionError:
        return None  # another user's process: PostgreSQL knows as well that it is not the one
    if _works_on(pid, data):
        return pid
    file.unlink(missing_ok=True)
    return None


def _works_on(pid: int, data: Path) -> bool:
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cwd").samefile(data)
        except OSError:  # a zombie, or gone
            return False
    answer = subprocess.run(
        ["ps", "-p", str(pid), "-o", "comm="], capture_output=True, text=True, check=False
    )
    return Path(answer.stdout.strip()).name.startswith("postgres")
