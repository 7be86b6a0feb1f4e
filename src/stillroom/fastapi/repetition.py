"""A line of the log for what happens a thousand times a second."""

import asyncio
import logging

logger = logging.getLogger("stillroom")


class Repetition:
    """Log what repeats itself once a second: the first at once, of the others how many there were.

    Under overload each line for each refusal would cost what the refusals are to save.
    """

    def __init__(self, seconds: float = 1.0) -> None:
        """Take after how many seconds what was left out is summed up."""
        self._seconds = seconds
        self._left_out: dict[str, int] = {}

    def log(self, name: str, line: str) -> None:
        """Log a line as a warning, unless another one of the same name stands there just now."""
        if name in self._left_out:
            self._left_out[name] += 1
            return
        logger.warning(line)
        self._wait(name)

    def _wait(self, name: str) -> None:
        self._left_out[name] = 0
        asyncio.get_running_loop().call_later(self._seconds, self._sum_up, name)

    def _sum_up(self, name: str) -> None:
        count = self._left_out.pop(name)
        if count:
            logger.warning("%s: %d more in the last %g s", name, count, self._seconds)
            self._wait(name)
