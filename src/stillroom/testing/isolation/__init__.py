"""How the work of one test is kept from the others."""

from collections.abc import Sequence
from typing import Protocol

from stillroom.testing.cost import Cost
from stillroom.testing.engines import Target


class Isolation(Protocol):
    """Give the scopes of a run (session, module, class, test) what their work is done in."""

    @property
    def cost(self) -> Cost:
        """Return what it has cost."""
        ...

    def stand_at(self, levels: Sequence[str]) -> Target:
        """Leave the scopes that are not named, undoing their work; say where engines go now.

        The scopes are named from the widest on. What one needs is made when it first connects.
        """
        ...

    def has_work(self, levels: Sequence[str]) -> bool:
        """Say whether something was done in scopes that are not named."""
        ...

    def url(self) -> str:
        """Return the URL of the database of the innermost scope."""
        ...

    def keep(self) -> str:
        """Let what was committed outlive the run; return the name of the database.

        It is empty where nothing has connected. What fixtures commit when they end is not in a
        sandbox that was kept; in a clone it is.
        """
        ...

    def close(self) -> None:
        """End all scopes."""
        ...
