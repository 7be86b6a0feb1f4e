"""What isolation costs the tests of a run."""

import time
from collections.abc import Generator
from contextlib import contextmanager


class Cost:
    """Add up the time for which tests have waited, and count these."""

    def __init__(self) -> None:
        self.tests = 0
        self.seconds = 0.0

    @contextmanager
    def measured(self) -> Generator[None]:
        """Add the time that the block takes."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - began
