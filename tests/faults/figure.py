"""What a fault has shown: figures of the scoreboard, each measured against its bounds."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A value that was measured, and what it must not exceed or fall short of."""

    what: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def holds(self) -> bool:
        """Say whether the value keeps its bounds; one without bounds is there to compare with."""
        is_low = self.at_most is None or self.value <= self.at_most
        return is_low and (self.at_least is None or self.value >= self.at_least)

    @property
    def bound(self) -> str:
        """Return the bounds in words."""
        words = [("at most", self.at_most), ("at least", self.at_least)]
        return ", ".join(f"{word} {bound:g}" for word, bound in words if bound is not None)


@dataclass(frozen=True)
class Figure:
    """A promise, by the number that it has on the scoreboard, and what was measured of it."""

    number: int
    claim: str
    measures: Sequence[Measure]

    @property
    def holds(self) -> bool:
        """Say whether all bounds are kept."""
        return all(measure.holds for measure in self.measures)


def none(what: str, count: int) -> Measure:
    """Return the measure of what must not happen at all."""
    return Measure(what, count, at_most=0)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all do not exceed; infinity where there are none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("inf")
