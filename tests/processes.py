"""Processes that a test starts, and what is left of them."""

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

MARK = "STILLROOM_TEST_MARK"


def mark() -> str:
    """Return a value that no other test has, for an environment that all descendants inherit."""
    return uuid.uuid4().hex


def survivors(marked: str, folder: Path) -> list[str]:
    """List the processes that live: those with the mark, and those that work in the folder.

    The second are PostgreSQL's: they overwrite their environment with their title.
    """
    return [
        f"{process.name}: {_title(process)}"
        for process in Path("/proc").iterdir()
        if process.name.isdecimal() and _belongs(process, marked, folder)
    ]


def eventually(condition: Callable[[], bool], seconds: float = 15) -> bool:
    """Wait until a condition holds; False when it still does not after these seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def nothing_is_left(marked: str, folder: Path) -> bool:
    """Wait until no process is left; on failure the assertion shows which are."""
    eventually(lambda: not survivors(marked, folder))
    left = survivors(marked, folder)
    assert left == [], left
    return True


def children(pid: int) -> Iterator[tuple[int, str]]:
    """Yield pid and command line of the children of a process."""
    for process in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            status = (process / "stat").read_text()
            if int(status.rpartition(")")[2].split()[1]) == pid:
                yield int(process.name), _title(process)


def _belongs(process: Path, marked: str, folder: Path) -> bool:
    if int(process.name) == os.getpid():
        return False
    with suppress(OSError):
        if f"{MARK}={marked}".encode() in (process / "environ").read_bytes():
            return True
        return (process / "cwd").readlink().is_relative_to(folder)
    return False


def _title(process: Path) -> str:
    with suppress(OSError):
        return (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return "?"
