"""What a run of tests keeps for the next one of the same project: a cluster with its template."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from stillroom.postgres.binaries import find_programs

_MONTH = 30 * 24 * 3600

_KEPT_AWAY = OSError, RuntimeError
"""What keeps a user from the cache, and stops no run; a RuntimeError is that there is no home."""


class KeptCluster:
    """Keep the data folder of a private server, one for each project and PostgreSQL.

    It is a cache in the user's folder of caches: where there is none that can be written, and after
    it was removed, a run makes what it needs anew. Who copies it and who replaces it take turns. A
    project of which nothing is kept yet begins with what another one has left, tables apart.
    """

    def __init__(self, project: Path) -> None:
        """Take the root folder of the project."""
        self._project = project

    @contextmanager
    def reading(self) -> Generator[Path | None]:
        """Give a data folder for as long as the block copies it; None where nothing is kept."""
        with ExitStack() as stack:
            yield self._read(stack)

    def replace(self, data: Path) -> None:
        """Copy the data folder of a server that does nothing and has made a checkpoint.

        What has no room stays unkept.
        """
        with suppress(*_KEPT_AWAY):
            self._replace(self._folders()[0], data)

    def add_bare(self, data: Path) -> None:
        """Copy such a data folder without tables, for new projects, unless one is kept."""
        with suppress(*_KEPT_AWAY):
            bare = self._folders()[1]
            if not bare.is_dir():
                self._replace(bare, data)

    def _read(self, stack: ExitStack) -> Path | None:
        with suppress(*_KEPT_AWAY):
            own, bare = self._folders()
            folder = own if own.is_dir() else bare
            if folder.is_dir():
                stack.enter_context(_lock(folder, fcntl.LOCK_SH))
                os.utime(folder)  # fails where it was removed meanwhile
                return folder
        return None

    def _replace(self, folder: Path, data: Path) -> None:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _remove_old(folder.parent)
        new = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            copy = subprocess.run(["cp", "-a", data, new], capture_output=True, check=False)
            if copy.returncode == 0:
                (new / "postmaster.pid").unlink(missing_ok=True)
                with _lock(folder, fcntl.LOCK_EX):
                    shutil.rmtree(folder, ignore_errors=True)
                    new.rename(folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _folders(self) -> tuple[Path, Path]:
        programs = find_programs()
        caches = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()

        def folder(name: str, *words: object) -> Path:
            words = (*words, programs.folder, programs.version, os.geteuid())
            key = hashlib.sha256("\0".join(map(str, words)).encode()).hexdigest()
            return Path(caches, "stillroom", f"{name}-{key[:16]}")

        return folder(self._project.name, self._project), folder("postgresql")


@contextmanager
def _lock(folder: Path, how: int) -> Generator[None]:
    descriptor = os.open(folder.with_suffix(".lock"), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)


def _remove_old(caches: Path) -> None:
    for folder in caches.iterdir():
        if folder.is_dir() and time.time() - folder.stat().st_mtime > _MONTH:
            with _lock(folder, fcntl.LOCK_EX):
                shutil.rmtree(folder, ignore_errors=True)
