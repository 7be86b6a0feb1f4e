"""The command `stillroom`, as it runs in a terminal of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.processes import MARK, eventually, mark, nothing_is_left


class Command:
    """A running `stillroom`, in a folder, with its output."""

    def __init__(self, folder: Path, *words: str, **environ: str) -> None:
        self.folder = folder
        self.marked = mark()
        self.log = folder.parent / f"{self.marked}.log"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DB_")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from stillroom.cli import main; main()", *words],
                cwd=folder,
                env={**inherited, **environ, MARK: self.marked, "PYTHONDONTWRITEBYTECODE": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """Return what it has said."""
        return self.log.read_text()

    def says(self, pattern: str) -> re.Match[str]:
        """Wait until it says something; the assertion shows what it said instead."""

        def said() -> bool:
            return bool(re.search(pattern, self.output)) or self.process.poll() is not None

        eventually(said, 30)
        match = re.search(pattern, self.output)
        assert match, self.output
        return match

    def code(self) -> int:
        """Wait for its end, and return its exit code."""
        return self.process.wait(30)

    def ends(self) -> int:
        """Wait for its end, and return its exit code; nothing of it is left."""
        code = self.code()
        assert nothing_is_left(self.marked, self.folder), self.output
        return code

    def stop(self, number: int = signal.SIGINT) -> int:
        """Ask it to stop, and return its exit code; nothing of it is left."""
        os.killpg(self.process.pid, number)
        return self.ends()


def end_all(commands: Sequence[Command]) -> None:
    """Kill what still runs; nothing of it is left."""
    for one in commands:
        one.process.kill()
        one.process.wait()
    for one in commands:
        nothing_is_left(one.marked, one.folder)
