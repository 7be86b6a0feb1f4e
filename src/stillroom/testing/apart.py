"""Work that would disturb a run of tests: an env.py of Alembic, or an event loop of its own."""

import logging
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from stillroom.testing.engines import routed

T = TypeVar("T")


def apart(url: str, work: Callable[[], T]) -> T:
    """Do something with every engine directed to one database, where no event loop runs.

    Logging is afterwards as it was before: the usual env.py calls fileConfig, which takes away the
    handlers of pytest and disables the loggers of the application. Ctrl-C waits for the work too:
    once nothing is directed any more, an env.py that goes on would connect to the URL it names.
    """
    with routed(url), _unchanged_logging(), ThreadPoolExecutor(1) as executor:
        return executor.submit(work).result()


@contextmanager
def _unchanged_logging() -> Generator[None]:
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    before = [
        (it, it.level, it.disabled, it.propagate, list(it.handlers))
        for it in loggers
        if isinstance(it, logging.Logger)
    ]
    try:
        yield
    finally:
        for logger, level, disabled, propagate, handlers in before:
            logger.setLevel(level)
            logger.disabled, logger.propagate = disabled, propagate
            logger.handlers[:] = handlers
