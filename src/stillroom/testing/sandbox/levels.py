"""The scopes of a run within one transaction: each a savepoint that its work is rolled back to."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from stillroom.testing.sandbox.catalog import reset_sequences
from stillroom.testing.sandbox.parameters import Values

Numbers = dict[str, str]
"""The last number that each sequence has given, by the sequence's oid."""


@dataclass
class Level:
    """A scope (session, module, class, test), and what it was when it was entered."""

    key: str
    applied: Values
    checks: str | None
    numbers: Numbers = field(default_factory=Numbers)
    within: Numbers | None = None
    """The numbers that a level within it begins with; None when they have to be read."""
    has_writes: bool = False
    has_drawn: bool = False  # from a sequence, which no rollback gives back


class Levels:
    """Know which scopes have been entered, and what brings the connection into and out of them."""

    def __init__(self) -> None:
        self.wanted: tuple[str, ...] = ("run",)
        self._entered: list[Level] = []
        self._bare = Level("", {}, None)  # the database without a transaction

    def __len__(self) -> int:
        return len(self._entered)

    @property
    def innermost(self) -> Level:
        """Return the narrowest scope that has been entered."""
        return self._entered[-1]

    @property
    def are_wanted(self) -> bool:
        """Say whether all that are wanted have been entered."""
        return len(self._entered) == len(self.wanted)

    def kept(self, wanted: Sequence[str]) -> int:
        """Return how many of those that have been entered are among these."""
        return _common([level.key for level in self._entered], wanted)

    def stay(self, wanted: Sequence[str]) -> int:
        """Return how many of those that are wanted now stay so, entered or not."""
        return _common(self.wanted, wanted)

    def enter(self, applied: Values, checks: str | None) -> str:
        """Enter all that are wanted; return the SQL that does it."""
        first = len(self._entered)
        sql = ["RELEASE SAVEPOINT s" if first else "BEGIN"]
        for number, key in enumerate(self.wanted[first:], first):
            if number:
                sql.append(f"SAVEPOINT level_{number}")
            self._entered.append(Level(key, dict(applied), checks))
        return "; ".join([*sql, "SAVEPOINT s"])

    def around(self, count: int) -> Level:
        """Return the level that the outermost `count` are in, or the bare database for none."""
        return self._entered[count - 1] if count else self._bare

    def begin_with(self, count: int, numbers: Numbers) -> None:
        """Note the numbers that all levels but the outermost `count` begin with."""
        self.around(count).within = numbers
        for level in self._entered[count:]:
            level.numbers = level.within = numbers

    def leave(self, count: int) -> tuple[Level, str]:
        """Leave all but the outermost `count`; return the outermost gone, and the SQL that does it.

        Without writes in those that stay the whole transaction ends, for it is entered again as
        fast.
        """
        gone = self._entered[count:]
        del self._entered[count:]
        sql = f"ROLLBACK TO SAVEPOINT level_{count}; RELEASE SAVEPOINT level_{count}; SAVEPOINT s"
        if not any(level.has_writes for level in self._entered):
            self._entered.clear()
            sql = "ROLLBACK"
        if any(level.has_writes or level.has_drawn for level in gone):
            sql += f"; {reset_sequences(gone[0].numbers)}"
        return gone[0], sql

    def note_commit(self) -> None:
        """Note that the innermost level has work of its own now."""
        self.innermost.has_writes = True
        self.innermost.within = None

    def note_rollback(self) -> None:
        """Note that work was rolled back, which gives no number of a sequence back."""
        self.innermost.has_drawn = True
        self.innermost.within = None

    def forget(self) -> None:
        """Note that the transaction has ended by itself, and with what is not known."""
        self._entered.clear()
        self._bare.within = None


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Return with how many keys both begin."""
    count = 0
    for key, like in zip(one, other, strict=False):
        if key != like:
            break
        count += 1
    return count
