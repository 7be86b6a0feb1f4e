"""Rounds: every method once in each, in an order that changes from round to round."""

import argparse
import random
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")

_random = random.Random(1)  # noqa: S311  (the same orders in each run)


def is_quick(question: str | None) -> bool:
    """Read the command line: --quick, or nothing."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument("--quick", action="store_true", help="few rounds: minutes, not an hour")
    return bool(parser.parse_args().quick)


def shuffled(values: Iterable[Value]) -> list[Value]:
    """Return the values in another order."""
    order = list(values)
    _random.shuffle(order)
    return order


def interleave(
    methods: Mapping[str, Callable[[], Value]], rounds: int
) -> Mapping[str, list[Value]]:
    """Return what each method gave in each round."""
    found: dict[str, list[Value]] = {name: [] for name in methods}
    for number in range(1, rounds + 1):
        for name in shuffled(methods):
            print(f"  round {number} of {rounds}: {name}", file=sys.stderr)
            found[name].append(methods[name]())
    return found
