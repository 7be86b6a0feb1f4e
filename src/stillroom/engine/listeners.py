"""Who hears what an engine and its pool do: SQLAlchemy's events, and its log.

A listener may do what only a greenlet can wait for, and some are told of a Connection.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Engine


@contextmanager
def own_listeners(engine: Engine) -> Generator[None]:
    """Know the listeners that are added within for the library's own."""
    statements, pool = _of_statements(engine), _of_pool(engine)
    yield
    own = _own.get(engine, (0, 0))
    _own[engine] = (
        own[0] + _of_statements(engine) - statements,
        own[1] + _of_pool(engine) - pool,
    )


def is_heard(engine: Engine) -> bool:
    """Say whether anybody else hears of statements and transactions, or logs them."""
    own, _ = _own.get(engine, (0, 0))
    return engine._should_log_info() or _of_statements(engine) != own


def pool_is_heard(engine: Engine) -> bool:
    """Say whether anybody else hears of connections that come and go."""
    _, own = _own.get(engine, (0, 0))
    return _of_pool(engine) != own


def _of_statements(engine: Engine) -> int:
    heard: Any = engine.dispatch
    by_dialect: Any = engine.dialect.dispatch
    return (
        len(heard.before_cursor_execute)
        + len(heard.after_cursor_execute)
        + len(heard.engine_connect)
        + len(heard.begin)
        + len(heard.commit)
        + len(heard.rollback)
        + len(by_dialect.do_execute)
    )


def _of_pool(engine: Engine) -> int:
    heard: Any = engine.pool.dispatch
    return len(heard.checkout) + len(heard.checkin) + len(heard.reset)


_own: WeakKeyDictionary[Engine, tuple[int, int]] = WeakKeyDictionary()
