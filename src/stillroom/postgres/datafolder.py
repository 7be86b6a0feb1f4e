"""A data folder of PostgreSQL: what is in it, whose it is, and the lock on it."""

import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path

from stillroom.errors import PostgresStartError
from stillroom.postgres.binaries import VARIABLE, Programs, User
from stillroom.postgres.postmaster import find_postmaster

_NOBODY = User(65534, 65534)  # initdb wants a user with a name; this one has one everywhere
_DYING_SECONDS = 1.0  # a process that was killed holds its locks until the kernel has ended it


def is_cluster(data: Path) -> bool:
    """Say whether there is a cluster in the folder, or nothing yet.

    Raises PostgresStartError when there is something else: it is not touched.
    """
    if (data / "PG_VERSION").exists():
        return True
    if data.exists() and any(data.iterdir()):
        raise PostgresStartError(
            f"{data} is not empty, and no data folder of PostgreSQL: it has no PG_VERSION. Nothing "
            "was changed. Move what is in it away, or choose another folder."
        )
    return False


def server_user(data: Path) -> User | None:
    """Return whom root becomes to run the server: the folder's owner, else nobody.

    An ordinary user becomes nobody else: None.
    """
    if os.geteuid() != 0:
        return None
    if is_cluster(data) and (status := data.stat()).st_uid != 0:
        return User(status.st_uid, status.st_gid)
    return _NOBODY


def refuse_another_major(data: Path, programs: Programs) -> None:
    """Raise PostgresStartError when the data are of another major version than the programs."""
    major = (data / "PG_VERSION").read_text().strip()
    if major == str(programs.major):
        return
    raise PostgresStartError(
        f"The data in {data} are PostgreSQL {major}'s, the programs in {programs.folder} are "
        f"PostgreSQL {programs.version}'s. Nothing was changed. Set {VARIABLE} to the folder of "
        f"the programs of PostgreSQL {major}; or dump the data with its pg_dump, move the folder "
        "away, and restore the dump in a new one."
    )


def lock(data: Path) -> int:
    """Take the folder for this process, and return the descriptor that holds the lock.

    The lock ends when the descriptor is closed, or the process ends in any way. Raises
    PostgresStartError when another process has it.
    """
    descriptor = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    deadline = time.monotonic() + _DYING_SECONDS
    while not _try_lock(descriptor):
        if time.monotonic() > deadline:
            os.close(descriptor)
            pid = find_postmaster(data)
            raise PostgresStartError(
                f"A PostgreSQL server{f' (pid {pid})' if pid else ''} runs on {data} already, "
                "started by another process. Use that one, or stop it first."
            )
        time.sleep(0.01)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def initdb_options(major: int) -> Sequence[Sequence[str]]:
    """Return initdb's options, in the order to try.

    Text is UTF-8, and lower() and upper() know Unicode as far as the system can: from 17 on
    PostgreSQL knows it by itself, before it needs the system's C.UTF-8.
    """
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-instructions"]
    if major < 17:
        return [[*options, "--locale=C.UTF-8"], [*options, "--locale=C"]]
    options.append("--locale-provider=builtin")
    return [
        [*options, "--locale=C.UTF-8"],
        [*options, "--locale=C", "--builtin-locale=C.UTF-8"],
    ]
