"""A pytest plugin that measures each test, in seconds.

A test lasts from the start of its protocol to that of the next one, so all that a plugin does
around a test counts, wherever it does it. Beside it stands how long the test's own function took.
Both are written as JSON, a pair for each test: at the end to the file in STOPWATCH; or, where TURNS
says "in,out,size" (two descriptors and a number), to `out` after each `size` tests, and the tests
of each turn begin when a byte comes from `in`.
"""

import json
import os
from collections.abc import Generator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

_turns = [int(word) for word in os.environ.get("TURNS", "").split(",") if word]
_times: list[tuple[float, float]] = []
_start = 0.0
_body = 0.0


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(nextitem: pytest.Item | None) -> Generator[None, Any, Any]:
    """Look at the clock before any other plugin does anything, and after the last test."""
    global _start  # noqa: PLW0603  (a plugin is a module)
    if _start:
        _times.append((perf_counter() - _start, _body))
    _take_turns()
    _start = perf_counter()
    result = yield
    if nextitem is None:
        _times.append((perf_counter() - _start, _body))
        _take_turns(is_last=True)
    return result


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call() -> Generator[None, Any, Any]:
    """Measure the function alone."""
    global _body  # noqa: PLW0603
    start = perf_counter()
    try:
        return (yield)
    finally:
        _body = perf_counter() - start


def pytest_sessionfinish() -> None:
    """Write the times of all tests, in their order."""
    if not _turns:
        Path(os.environ["STOPWATCH"]).write_text(json.dumps(_times))


def _take_turns(*, is_last: bool = False) -> None:
    if not _turns:
        return
    come, go, size = _turns
    if len(_times) == size:
        os.write(go, json.dumps(_times).encode() + b"\n")
        _times.clear()
    if not _times and not is_last:
        os.read(come, 1)
