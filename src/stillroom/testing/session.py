"""What PostgreSQL would know of one connection: its parameters, its transaction, what it runs."""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from stillroom.testing.parameters import Parameters, Values
from stillroom.testing.refusal import Refusal, SandboxError
from stillroom.testing.statements import Statement


@dataclass
class Transaction:
    """What a BEGIN began; `earlier` are the parameters that a rollback brings back."""

    earlier: Parameters
    is_read_only: bool
    isolation: str
    """As PostgreSQL shows it; empty for the one of the database."""
    commits: int | None = None  # of the sandbox, when the first statement ran
    has_failed: bool = False
    is_lost: bool = False
    refusal: str = ""
    """Why no statement may work in it; BEGIN itself must not fail, for a driver would not know."""
    savepoints: list[tuple[str, Parameters]] = field(default_factory=list[tuple[str, Parameters]])

    def note(self, words: str) -> None:
        """Take the modes that BEGIN or SET TRANSACTION names."""
        if "READ ONLY" in words or "READ WRITE" in words:
            self.is_read_only = "READ ONLY" in words
        if found := _ISOLATION.search(words):
            self.isolation = found[1].lower()


@dataclass(eq=False)
class Session:
    """Hold the state of one logical connection; it is what waits for a turn at the gate."""

    number: int
    parameters: Parameters = field(default_factory=Parameters)
    transaction: Transaction | None = None
    task: asyncio.Task[Any] | None = None
    """Who sent what runs or waits."""
    statement: str = ""
    """What runs or waits, shortened."""
    never_waits: bool = False
    last_write: str = ""
    xid: str = ""
    """The id of the transaction in the eyes of the application; empty until it has written."""

    @property
    def status(self) -> bytes:
        """Return the status of a ReadyForQuery."""
        if self.transaction is None:
            return b"I"
        return b"E" if self.transaction.has_failed else b"T"

    @property
    def is_read_only(self) -> bool:
        """Say whether what runs next must not write."""
        if self.transaction is not None:
            return self.transaction.is_read_only
        return _is_on(self.parameters.effective().get("default_transaction_read_only"))

    @property
    def isolation(self) -> str:
        """Return the isolation level as PostgreSQL shows it; empty for the one of the database."""
        if self.transaction is not None:
            return self.transaction.isolation
        return self.parameters.effective().get("default_transaction_isolation", "").lower()

    def begin(self, words: str) -> None:
        """Begin a transaction; PostgreSQL only warns where there is one."""
        if self.transaction is not None:
            return
        self.xid = ""
        self.transaction = Transaction(self.parameters.copy(), self.is_read_only, self.isolation)
        if self.transaction.isolation == "serializable":
            self.transaction.refusal = "The session's transactions are SERIALIZABLE"
        self.transaction.note(words)

    def note(self, statements: Iterable[Statement]) -> None:
        """Remember what is about to run, for the messages of those who wait for it."""
        for statement in statements:
            self.statement = short(statement.text)
            self.never_waits = statement.never_waits

    def fail(self) -> None:
        """Abort the transaction, if there is one."""
        if self.transaction is not None:
            self.transaction.has_failed = True

    def lose(self) -> None:
        """Abort the transaction, if there is one: its work has been rolled back with its test."""
        if self.transaction is not None:
            self.transaction.has_failed = self.transaction.is_lost = True
            self.transaction.savepoints.clear()

    def refuse_where_failed(self, statements: Iterable[Statement] = ()) -> None:
        """Raise what PostgreSQL says to a statement in an aborted transaction.

        Raises Refusal in one that cannot be sandboxed, where a parameter may still be shown.
        """
        transaction = self.transaction
        if transaction is None:
            return
        shows = {statement.words.startswith("SHOW ") for statement in statements} == {True}
        if transaction.refusal and not transaction.has_failed and not shows:
            raise Refusal(transaction.refusal)
        if not transaction.has_failed:
            return
        if transaction.is_lost:
            raise Refusal(
                "This transaction was begun in a test that has ended; its work was rolled back "
                "with the test. Close sessions before the test ends"
            )
        raise SandboxError("25P02", _ABORTED)

    def refuse_older_snapshot(self, commits: int) -> None:
        """Raise Refusal in REPEATABLE READ, when others have committed since the first look."""
        transaction = self.transaction
        if transaction is None or transaction.isolation != "repeatable read":
            return
        if transaction.commits is None:
            transaction.commits = commits
        elif transaction.commits != commits:
            raise Refusal(
                f"{self.statement!r} runs in a transaction of REPEATABLE READ, and another "
                "connection has committed since it began: the sandbox has no older snapshot"
            )

    def wanted(self, statements: Iterable[Statement]) -> Values:
        """Return the parameters that the statements have to run under."""
        wanted = self.parameters.effective()
        for statement in statements:
            if statement.sees_transaction_id:
                wanted["stillroom.xid"] = self.xid
            if statement.sees_isolation and self.isolation:
                wanted["stillroom.isolation"] = self.isolation
        return wanted


def short(sql: str) -> str:
    """Return a statement as a message shows it."""
    text = " ".join(sql.split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def identifier(sql: str) -> str:
    """Return the name at the end of SAVEPOINT, RELEASE or ROLLBACK TO, as PostgreSQL folds it."""
    found = re.search(r"(?:\"((?:[^\"]|\"\")+)\"|([\w$]+))\s*;?\s*$", sql)
    if found is None:
        raise SandboxError("42601", f"syntax error: {short(sql)}")
    return found[1].replace('""', '"') if found[1] else found[2].lower()


def savepoint(name: str) -> str:
    """Return what a savepoint of the application is called on the physical connection."""
    return '"app ' + name.replace('"', '""') + '"'


def _is_on(value: str | None) -> bool:
    return (value or "").lower() in ("on", "true", "1", "yes", "t")


_ISOLATION = re.compile(r"ISOLATION LEVEL (READ (?:UN)?COMMITTED|REPEATABLE READ|SERIALIZABLE)")
_ABORTED = "current transaction is aborted, commands ignored until end of transaction block"
