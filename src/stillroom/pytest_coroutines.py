"""The tests that are coroutines: they run without a marker and without a setting."""

import inspect
from collections.abc import Generator
from typing import Any, cast

import pytest


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pycollect_makeitem() -> Generator[None, Any, Any]:
    """Give the coroutines that nobody else runs to pytest-asyncio, before it looks for its own.

    In its auto mode they are there already; in its strict one, the default, they could only fail.
    """
    made = yield
    nodes: tuple[Any, ...] = tuple(cast("Any", made)) if isinstance(made, list) else (made,)
    for node in nodes:
        if isinstance(node, pytest.Function) and _is_unclaimed(node):
            node.add_marker("asyncio")
    return cast("Any", made)


def _is_unclaimed(test: pytest.Function) -> bool:
    """Say whether a test is a coroutine of no framework; those of anyio have its fixture."""
    function: Any = test.obj
    tested = getattr(getattr(function, "hypothesis", None), "inner_test", function)
    if not inspect.iscoroutinefunction(tested) or "anyio_backend" in test.fixturenames:
        return False
    return not any(test.get_closest_marker(name) for name in ("asyncio", "trio"))
