"""The logical connections of a sandbox."""

from collections.abc import Iterator

from stillroom.testing.sandbox.connection import LogicalConnection
from stillroom.testing.sandbox.session import Session


class Connections:
    """Know those that are open, by their numbers, and do to all what a test's end does to each."""

    def __init__(self) -> None:
        self._connections: dict[int, LogicalConnection] = {}
        self._numbers = 0

    def __iter__(self) -> Iterator[LogicalConnection]:
        """Return those that are open now: what is done to one may end it."""
        return iter(list(self._connections.values()))

    @property
    def next_number(self) -> int:
        """Return a number that no connection has had."""
        self._numbers += 1
        return self._numbers

    @property
    def are_idle(self) -> bool:
        """Say whether all wait for nothing but their users."""
        return all(connection.is_idle for connection in self)

    def may_hold_locks(self, depth: int) -> bool:
        """Say whether any may hold advisory locks, taken since a level of this depth began."""
        return any(connection.may_hold_locks(depth) for connection in self)

    def add(self, connection: LogicalConnection) -> None:
        """Take a new one."""
        self._connections[connection.session.number] = connection

    def remove(self, connection: LogicalConnection) -> None:
        """Forget one that has ended."""
        self._connections.pop(connection.session.number, None)

    def find(self, number: int) -> LogicalConnection | None:
        """Return the one that has this number, if it is open."""
        return self._connections.get(number)

    def enter(self, depth: int) -> None:
        """Note that a level begins."""
        for connection in self:
            connection.session.enter(depth)

    def leave(self, depth: int) -> None:
        """Note that all that was done in a level has been rolled back, and in those within it."""
        for connection in self:
            connection.leave_level(depth)

    def end_statement(self, session: Session, reason: str) -> None:
        """Cancel what a session runs."""
        if (connection := self.find(session.number)) is not None:
            connection.end_statement(reason)

    async def release_locks(self, depth: int) -> None:
        """Release the advisory locks that were taken since a level of this depth began."""
        for connection in self:
            await connection.release_locks(depth)

    async def abandon(self) -> None:
        """Lose them all."""
        for connection in self:
            await connection.abandon()
