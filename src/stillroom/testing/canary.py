"""A witness that what a test did in the sandbox is gone: a process that looks from outside."""

import json
import subprocess
import sys
from typing import Any

from stillroom.errors import StillroomError
from stillroom.testing.fingerprint import AT_REST, LOCKING, WITHIN, Finding
from stillroom.testing.refusal import MARKER


class CanaryError(StillroomError):
    """Report that the process could not look."""


class Canary:
    """Compare a database with what it was, by a connection of a process of its own.

    The database is the one that a sandbox is in: a copy of the template, which itself lets nobody
    in. Nothing that a sandbox does is ever committed there, so nothing may ever change. What a
    transaction that is still open has locked cannot be read: it is named in `unread`, and read the
    next time.
    """

    def __init__(self, url: str) -> None:
        """Start the process; return when it has read the database as it is."""
        self.looks = 0
        self.unread: set[str] = set()
        self._process = subprocess.Popen(
            # The project's folder is kept from its path: a module there may have any name.
            [sys.executable, "-P", "-m", "stillroom.testing.fingerprint"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C ends the run, which ends this
        )
        self.is_watching = True
        self._ask(url)  # no argument: everybody may read those, and a password may be in it

    def look(self, *, at_rest: bool, has_locks: bool = False) -> str:
        """Say what has changed and what to do, nothing if nothing has; raises CanaryError.

        `at_rest` says that no scope is open that has used the database. Else its sequences show
        what it has drawn from them, and are left out; as are, where it has any, advisory locks.
        """
        finding = self._ask(LOCKING if has_locks else AT_REST if at_rest else WITHIN)
        self.looks += 1
        self.unread |= set(finding.unread)
        return _MESSAGE.format(changed="\n".join(finding.changed)) if finding.changed else ""

    def close(self) -> None:
        """End the process; a second call does nothing."""
        self.is_watching = False
        with self._process:  # closes its input, at whose end it ends
            pass

    def _ask(self, line: str) -> Finding:
        answer: dict[str, Any] = {}
        if self._process.poll() is None and self._process.stdin and self._process.stdout:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline() or "{}")
        if not answer or "error" in answer:
            _, said = self._process.communicate()
            msg = (
                "The canary, a process that reads the database of the tests, could not go on: "
                f"{answer.get('error') or said or self._process.returncode}. Without the option "
                "--stillroom-canary the tests run without it"
            )
            raise CanaryError(msg)
        return Finding(**answer)


_MESSAGE = (
    "The canary has found the database of the sandbox changed after this test, whose work has been "
    "rolled back:\n{changed}\n"
    "It looked from a process of its own. So the test has reached the database past the sandbox, "
    "by a program that it runs or a function that connects; or another user of the server has "
    f"changed it. Give such a test a database of its own: {MARKER}. The run ends here: all "
    "later tests would begin with this"
)
