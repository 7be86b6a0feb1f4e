"""The session of a request, handed to its view without FastAPI's resolution of dependencies.

That costs a tenth of a small request. What FastAPI knows of the route, and its document, stay as
they are.
"""

import inspect
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import wraps
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import _effective_route_context_var

from stillroom.fastapi.unit import UnitOfWork

current: ContextVar[UnitOfWork] = ContextVar("stillroom.unit_of_work")
"""The unit of work of the request."""


@contextmanager
def injected(route: Any, kind: type) -> Generator[bool]:
    """Let the handlers that are made in the block hand sessions to the route's view by themselves.

    They are those parameters of the view whose dependency is of a kind that has a manager. Says
    whether there are any; where a dependency is overridden such a handler must not be used.
    """
    context = _effective_route_context_var.get()
    holder = context if context is not None and context.original_route is route else route
    whole: Dependant = holder.dependant
    lean = _without_sessions(whole, kind)
    holder.dependant = lean or whole
    try:
        yield lean is not None
    finally:
        holder.dependant = whole


def _without_sessions(dependant: Dependant, kind: type) -> Dependant | None:
    view = dependant.call
    sessions: dict[str, Any] = {
        it.name: it.call for it in dependant.dependencies if it.name and isinstance(it.call, kind)
    }
    if not sessions or view is None or inspect.isasyncgenfunction(view):
        return None
    managers = {name: call.manager for name, call in sessions.items()}
    if inspect.iscoroutinefunction(view):
        call = _with_sessions(view, managers)
    elif inspect.isfunction(view) and not inspect.isgeneratorfunction(view):
        call = _with_sessions_in_thread(view, managers)
    else:
        return None
    others = [it for it in dependant.dependencies if it.name not in sessions]
    return replace(dependant, call=call, dependencies=others)


def _with_sessions(view: Callable[..., Any], managers: dict[str, Any]) -> Callable[..., Any]:
    @wraps(view)
    async def call(**values: Any) -> Any:
        unit = current.get()
        for name, manager in managers.items():
            values[name] = unit.session(manager)
        return await view(**values)

    return call


def _with_sessions_in_thread(
    view: Callable[..., Any], managers: dict[str, Any]
) -> Callable[..., Any]:
    @wraps(view)
    def call(**values: Any) -> Any:
        unit = current.get()
        for name, manager in managers.items():
            values[name] = unit.session(manager)
        return view(**values)

    return call
