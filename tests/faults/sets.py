"""A set, as Jepsen checks one: what was acknowledged is in the final read, what failed is not.

Each element is added once. The outcome of an add is known ('ok', 'fail'), or it is not ('info', as
when the connection was cut): then the element may be there or not, and once if it is.
https://jepsen-io.github.io/jepsen/jepsen.checker.html#var-set
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from tests.faults.answer import Answer

Outcome = Literal["ok", "fail", "info"]


@dataclass(frozen=True)
class Verdict:
    """Hold the elements for which a history and the final read do not fit."""

    lost: frozenset[str]
    """Acknowledged, and not there."""
    revived: frozenset[str]
    """Said to have failed, and there."""
    invented: frozenset[str]
    """Never added, and there."""
    doubled: frozenset[str]
    """There more than once."""

    @property
    def holds(self) -> bool:
        """Say whether there are none."""
        return not (self.lost or self.revived or self.invented or self.doubled)


def check(history: Mapping[str, Outcome], final_read: Iterable[str]) -> Verdict:
    """Compare what was answered to each add with what is there at the end."""
    times = Counter(final_read)
    return Verdict(
        lost=frozenset(one for one, outcome in history.items() if outcome == "ok") - times.keys(),
        revived=frozenset(one for one in times if history.get(one) == "fail"),
        invented=frozenset(times.keys() - history.keys()),
        doubled=frozenset(one for one, count in times.items() if count > 1),
    )


def outcome(answer: Answer) -> Outcome:
    """Return what an answer to an add says of it."""
    if answer.status == 0 or answer.says_unknown:
        return "info"
    return "ok" if answer.status < 400 else "fail"


def history(answers: Iterable[Answer]) -> dict[str, Outcome]:
    """Return the outcome for each element, which is the last part of the path."""
    return {answer.path.rpartition("=")[2]: outcome(answer) for answer in answers}
