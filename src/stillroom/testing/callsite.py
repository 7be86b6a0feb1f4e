"""The line of the application that is at work, whatever runs beneath it."""

import linecache
import os
import site
import sys
import sysconfig
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from greenlet import getcurrent

_STILLROOM = str(Path(__file__).parents[1])


class CallSite(NamedTuple):
    """A line of a source file; its text is read when it is asked for."""

    file: str
    line: int

    @property
    def source(self) -> str:
        """Return the line without its indent; empty where there is no such file."""
        return linecache.getline(self.file, self.line).strip()

    def __str__(self) -> str:
        """Show the path from the working directory, or from the folder of the packages."""
        path = Path(self.file)
        for folder in (Path.cwd(), Path(_STILLROOM).parent, *_PACKAGES):
            if path.is_relative_to(folder):
                path = path.relative_to(folder)
        return f"{path}:{self.line}"


def find_call_site() -> CallSite | None:
    """Return the innermost line of the application on the stack of the caller.

    SQLAlchemy's asyncio runs a statement in a greenlet, whose stack ends where it was started: the
    coroutine that awaits it stands on the stack of the greenlet's parent. Where the application has
    no line (a flush that the unit of work makes) it is the innermost line of a library other
    than SQLAlchemy and the drivers; None where there is none either, as in a task that was made
    of a method of the session. No frame is kept.
    """
    fallback: CallSite | None = None
    greenlet = getcurrent()
    frame: FrameType | None = sys._getframe(1)
    while True:
        while frame is not None:
            origin = _origins[frame.f_code.co_filename]
            if origin is _Origin.APPLICATION:
                return CallSite(frame.f_code.co_filename, frame.f_lineno)
            if origin is _Origin.LOOP:
                return fallback
            if origin is _Origin.LIBRARY and fallback is None:
                fallback = CallSite(frame.f_code.co_filename, frame.f_lineno)
            frame = frame.f_back
        if greenlet.parent is None:
            return fallback
        greenlet = greenlet.parent
        frame = greenlet.gr_frame


class _Origin(Enum):
    APPLICATION = "application"
    LIBRARY = "library"
    DATABASE = "database"  # SQLAlchemy, the drivers and the standard library: never shown
    LOOP = "loop"  # beneath it stands who runs the event loop, not who awaits the task


class _Origins(dict[str, _Origin]):
    """What each source file belongs to, looked up once."""

    def __missing__(self, file: str) -> _Origin:
        origin = self[file] = _origin(file)
        return origin


def _origin(file: str) -> _Origin:
    if file.startswith(_EVENT_LOOP):
        return _Origin.LOOP
    if file.startswith(("<", *_DATABASE)):  # "<string>" and "<frozen ...>" are generated
        return _Origin.DATABASE
    path = Path(file)
    if {"site-packages", "dist-packages"} & set(path.parts) or file.startswith(_LIBRARY):
        return _Origin.LIBRARY
    return _Origin.DATABASE if file.startswith(_STANDARD) else _Origin.APPLICATION


def _package(name: str) -> list[str]:
    spec = find_spec(name)
    return [f"{folder}{os.sep}" for folder in (spec and spec.submodule_search_locations) or ()]


def _folders(*names: str) -> tuple[str, ...]:
    return tuple(f"{sysconfig.get_path(name)}{os.sep}" for name in names)


_DATABASE = tuple(
    folder
    for name in ("sqlalchemy", "asyncpg", "psycopg", "psycopg_binary", "psycopg_pool", "greenlet")
    for folder in (*_package(name), *([f"{_STILLROOM}{os.sep}testing{os.sep}"]))
)
_STANDARD = _folders("stdlib", "platstdlib")
_EVENT_LOOP = tuple(
    f"{folder}asyncio{os.sep}{module}.py"
    for folder in _STANDARD
    for module in ("base_events", "events", "runners")
)
_LIBRARY = (f"{_STILLROOM}{os.sep}", *_folders("scripts", "purelib", "platlib"))
_PACKAGES = [Path(folder) for folder in (*site.getsitepackages(), *_folders("purelib", "platlib"))]

_origins = _Origins()
