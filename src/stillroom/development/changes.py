"""Changes of a service's Python files, as they happen."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from watchfiles import (
    Change,
    PythonFilter,
    awatch,  # pyright: ignore[reportUnknownVariableType]
)
from watchfiles.main import FileChange


async def changes(folder: Path) -> AsyncGenerator[list[Path]]:
    """Yield what was added, modified or deleted in a folder: Python files, and new folders.

    Hidden folders, caches and virtual environments are not watched at all: the database writes
    below `.stillroom` all the time, and every event costs.
    """
    while True:
        watched = [awatch(folder, recursive=False, watch_filter=_is_python_or_new_folder)]
        if below := _source_folders(folder):
            watched.append(awatch(*below, watch_filter=PythonFilter()))
        async with contextlib.aclosing(_merged(watched)) as batches:
            async for batch in batches:
                yield sorted({Path(path) for _, path in batch})
                if not all(path.endswith(".py") for _, path in batch):
                    break  # a new folder: watch what is in it too


async def _merged(
    watched: list[AsyncGenerator[set[FileChange]]],
) -> AsyncGenerator[set[FileChange]]:
    following = {asyncio.ensure_future(anext(watch)): watch for watch in watched}
    try:
        while True:
            done, _ = await asyncio.wait(following, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                watch = following.pop(task)
                following[asyncio.ensure_future(anext(watch))] = watch
                yield task.result()
    finally:
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)


_is_python = PythonFilter()


def _is_python_or_new_folder(change: Change, path: str) -> bool:
    return _is_python(change, path) or (change is Change.added and _is_source_folder(Path(path)))


def _source_folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if _is_source_folder(path)]


def _is_source_folder(path: Path) -> bool:
    hidden = path.name.startswith(".") or path.name in PythonFilter.ignore_dirs
    return path.is_dir() and not hidden and not (path / "pyvenv.cfg").exists()
