"""Runs of pytest on a project of projects/, each a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

FOLDER = Path(__file__).parent
PROJECTS = FOLDER / "projects"

ASYNCIO = ("pytest_asyncio.plugin",)
STILLROOM = ("stillroom.pytest_plugin",)
POSTGRESQL = ("pytest_postgresql.plugin",)

_cache = tempfile.TemporaryDirectory()  # gone with this process; the user's own is left alone


@dataclass(frozen=True)
class Suite:
    """A project, and how pytest runs it: with these plugins, and with no others."""

    project: Path
    plugins: Sequence[str] = ()
    arguments: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=dict[str, str])

    def command(self) -> list[str]:
        """Return the command line."""
        plugins = [word for name in (*self.plugins, "stopwatch") for word in ("-p", name)]
        options = ["-q", "-p", "no:cacheprovider", *plugins, *self.arguments]
        return [sys.executable, "-m", "pytest", *options]

    def environment(self) -> dict[str, str]:
        """Return this process's environment without what names a database or changes pytest."""
        prefixes = ("PG", "DB_", "DATABASE_", "PYTEST_", "STILLROOM_TEST_", "PYTHON")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
        given = {
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONPATH": str(FOLDER),
            "XDG_CACHE_HOME": _cache.name,
        }
        return {**kept, **given, **self.environ}


@dataclass(frozen=True)
class Times:
    """What one run took, in seconds: the whole process, and each of its tests."""

    process: float
    tests: Sequence[float]


def run(suite: Suite) -> Times:
    """Run pytest. Raises RuntimeError unless all tests pass."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "times.json")
        environment = {**suite.environment(), "STOPWATCH": str(file)}
        with tempfile.TemporaryFile("w+") as output:
            start = perf_counter()
            process = subprocess.Popen(
                suite.command(), cwd=suite.project, env=environment, stdout=output, stderr=output
            )
            process.wait()
            whole = perf_counter() - start
            if process.returncode != 0:
                output.seek(0)
                raise _failure(suite, output.read())
        return Times(whole, [test for test, _ in json.loads(file.read_text())])


class Turns:
    """A run of pytest that goes on when it is told to, for some tests."""

    def __init__(self, suite: Suite, come: int, go: int) -> None:
        self._suite = suite
        self._come = come
        self._go = os.fdopen(go)

    def next(self) -> list[tuple[float, float]]:
        """Let it run the tests of a turn; return the seconds of each, and of its function alone.

        Raises RuntimeError if it ends.
        """
        os.write(self._come, b".")
        if not (line := self._go.readline()):
            raise _failure(self._suite, "It ended before its turn; run the command by itself.")
        return [(whole, body) for whole, body in json.loads(line)]

    def close(self) -> None:
        """Let it end."""
        os.close(self._come)
        self._go.close()


@contextmanager
def turns(suite: Suite, size: int) -> Generator[Turns]:
    """Start a run that waits for its turns, each of `size` tests; it must pass them all."""
    (come_out, come_in), (go_out, go_in) = os.pipe(), os.pipe()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            suite.command(),
            cwd=suite.project,
            env={**suite.environment(), "TURNS": f"{come_out},{go_in},{size}"},
            stdout=output,
            stderr=output,
            pass_fds=[come_out, go_in],
        )
        os.close(come_out)
        os.close(go_in)
        running = Turns(suite, come_in, go_out)
        try:
            yield running
        finally:
            running.close()
            process.wait()
        if process.returncode != 0:
            output.seek(0)
            raise _failure(suite, output.read())


def _failure(suite: Suite, output: str) -> RuntimeError:
    command = " ".join(suite.command())
    return RuntimeError(f"{command} in {suite.project} failed:\n{output[-3000:]}")
