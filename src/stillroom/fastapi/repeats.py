"""What happens a thousand times a second, as under overload, is no thousand lines of a log."""

import asyncio
import logging
from dataclasses import dataclass


class Repeats:
    """Log the first of what is alike at once, and then, once a second, how many more there were."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._seen: dict[str, _Seen] = {}

    def log(self, kind: str, message: str, *arguments: object) -> None:
        """Log a warning of a kind; called in an event loop."""
        loop = asyncio.get_running_loop()
        seen = self._seen.get(kind)
        if seen is not None and seen.loop is loop:
            seen.more += 1
            return
        self._logger.warning(message, *arguments)
        self._begin_second(kind, loop)

    def _begin_second(self, kind: str, loop: asyncio.AbstractEventLoop) -> None:
        self._seen[kind] = _Seen(loop)
        loop.call_later(_SECOND, self._end_second, kind, loop)

    def _end_second(self, kind: str, loop: asyncio.AbstractEventLoop) -> None:
        if not (more := self._seen.pop(kind).more):
            return
        self._logger.warning("%s: %d more in the last second", kind, more)
        self._begin_second(kind, loop)


@dataclass
class _Seen:
    loop: asyncio.AbstractEventLoop
    more: int = 0


_SECOND = 1.0
