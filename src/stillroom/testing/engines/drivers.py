"""The one function in each driver that every new connection passes, watched while tests run.

It is the innermost one: `from asyncpg import connect` holds the outer one from its import on.
"""

import sys
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from stillroom.testing.engines.places import Place
from stillroom.testing.wire.transport import WIRE, AnyLoop

Check = Callable[[str, Place], None]
"""Take the name of a driver and where it is about to connect to; raise to prevent that."""


class Watch(MetaPathFinder):
    """Ask before asyncpg, psycopg or psycopg2 connects, whoever calls it.

    A driver that is not imported yet is watched from its import on: to import each of them in every
    run of tests would cost a tenth of a second.
    """

    def __init__(self, check: Check) -> None:
        self._check = check
        self._originals: dict[str, Any] = {}

    def start(self) -> None:
        """Begin to ask; nothing happens where it has begun."""
        if self in sys.meta_path:
            return
        sys.meta_path.insert(0, self)
        for name in FUNNELS:
            if (module := sys.modules.get(name)) is not None:
                self._wrap(module)

    def stop(self) -> None:
        """Leave the drivers as they were."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
        for name, original in self._originals.items():
            setattr(sys.modules[name], FUNNELS[name][0], original)
        self._originals.clear()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a driver's module as the others do, to wrap it once it has been executed."""
        if fullname not in FUNNELS:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, specs), None)
        loader: Any = spec and spec.loader
        if loader is not None:
            execute = loader.exec_module

            def execute_and_wrap(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:
                    self._wrap(module)

            loader.exec_module = execute_and_wrap
        return spec

    def _wrap(self, module: ModuleType) -> None:
        name, wrap = FUNNELS[module.__name__]
        original = getattr(module, name)
        self._originals[module.__name__] = original
        setattr(module, name, wrap(original, self._ask))

    def _ask(self, driver: str, place: Place) -> None:
        if not _is_own.get():
            self._check(driver, place)


@contextmanager
def own_connections() -> Generator[None]:
    """Let pass what the block connects to: it is the run's own."""
    token = _is_own.set(True)
    try:
        yield
    finally:
        _is_own.reset(token)


def _asyncpg(connect: Callable[..., Awaitable[Any]], ask: Check) -> Callable[..., Awaitable[Any]]:
    async def connect_or_raise(*, addr: Any, loop: Any, params: Any, **others: Any) -> Any:
        if not (isinstance(loop, AnyLoop) and addr == WIRE):
            ask("asyncpg", Place.of_address(addr, params.database))
        return await connect(addr=addr, loop=loop, params=params, **others)

    return connect_or_raise


def _psycopg(attempts: Callable[..., Any], ask: Check) -> Callable[..., Any]:
    # Asked before the names of hosts are looked up, which is the next thing that happens.
    def attempts_or_raise(params: Mapping[str, Any]) -> Any:
        ask("psycopg", Place.of_libpq(params))
        return attempts(params)

    return attempts_or_raise


def _psycopg2(connect: Callable[..., Any], ask: Check) -> Callable[..., Any]:
    def connect_or_raise(dsn: str, *arguments: Any, **others: Any) -> Any:
        ask("psycopg2", Place.of_libpq(sys.modules["psycopg2.extensions"].parse_dsn(dsn)))
        return connect(dsn, *arguments, **others)

    return connect_or_raise


_is_own: ContextVar[bool] = ContextVar("stillroom.is_own", default=False)

FUNNELS: dict[str, tuple[str, Callable[[Callable[..., Any], Check], Callable[..., Any]]]] = {
    "asyncpg.connect_utils": ("_connect_addr", _asyncpg),
    "psycopg.connection": ("conninfo_attempts", _psycopg),
    "psycopg.connection_async": ("conninfo_attempts_async", _psycopg),
    "psycopg2": ("_connect", _psycopg2),
}
"""The module and the name of each of these functions, and what is put around it."""
