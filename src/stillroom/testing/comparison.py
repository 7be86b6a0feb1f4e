"""The same tests in the sandbox and on databases of their own: which outcomes differ."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stillroom.errors import StillroomError


class ComparisonError(StillroomError):
    """Report that one of the two runs could not be made, so that there is nothing to compare."""


@dataclass(frozen=True)
class Outcome:
    """What became of a test."""

    kind: str
    """A word of pytest's: passed, failed, error, skipped, xfailed."""
    reason: str = ""
    """The first line of the failure."""

    def __str__(self) -> str:
        """Show both on a line."""
        return f"{self.kind}: {self.reason}" if self.reason else self.kind


Outcomes = dict[str, Outcome]
"""The outcomes of a run, each by the name of its test."""


def compare(arguments: Sequence[str], say: Callable[[str], None]) -> int:
    """Run pytest in both isolations; say test by test what differs, and return the number.

    Each run is a process, whose output goes to where this one's goes, shortened. Failures count
    as alike whatever their reasons say: these may have times and addresses in them. Raises
    ComparisonError where pytest ends without having run tests.
    """
    runs: list[Outcomes] = []
    for isolation, place in _PLACES.items():
        say(f"{place}:")
        runs.append(_run(isolation, arguments))
    sandbox, clone = runs
    differing = [name for name in _names(sandbox, clone) if _differ(sandbox, clone, name)]
    for name in differing:
        say(f"\n{name}")
        for place, run in zip(_PLACES.values(), runs, strict=True):
            say(f"  {place}: {run.get(name, _NOT_RUN)}")
    alike = len(_names(sandbox, clone)) - len(differing)
    verb = "differs" if len(differing) == 1 else "differ"
    say(f"\n{alike} {'test' if alike == 1 else 'tests'} alike, {len(differing)} {verb}")
    return len(differing)


def _run(isolation: str, arguments: Sequence[str]) -> Outcomes:
    with tempfile.TemporaryDirectory(prefix="stillroom-") as folder:
        file = Path(folder, "outcomes.json")
        command = [
            *(sys.executable, "-m", "pytest", "-q", "--no-header", "--no-summary", *arguments),
            *(f"--stillroom-isolation={isolation}", f"--stillroom-outcomes={file}"),
        ]
        code = subprocess.run(command, check=False).returncode
        outcomes: dict[str, tuple[str, str]] = json.loads(
            file.read_text() if file.exists() else "{}"
        )
    if code not in _RAN or not outcomes:
        ending = _ENDINGS.get(code, f"pytest has ended with exit code {code}")
        msg = (
            f"Nothing was compared: {ending}, in the run with --stillroom-isolation={isolation}. "
            "What it says stands above; the tests must run with pytest alone first"
        )
        raise ComparisonError(msg)
    return {name: Outcome(*outcome) for name, outcome in outcomes.items()}


def _names(sandbox: Outcomes, clone: Outcomes) -> list[str]:
    return list({**sandbox, **clone})


def _differ(sandbox: Outcomes, clone: Outcomes, name: str) -> bool:
    return sandbox.get(name, _NOT_RUN).kind != clone.get(name, _NOT_RUN).kind


_PLACES = {"sandbox": "In the sandbox", "clone": "On clones"}
_NOT_RUN = Outcome("not run")
_RAN = (0, 1)
_ENDINGS = {
    2: "pytest was interrupted, by an error of collection or by Ctrl-C",
    3: "pytest has failed with an error of its own",
    4: "pytest does not understand its arguments or settings",
    5: "there are no tests",
}
