"""What PostgreSQL would know of one connection: its parameters, its transaction, what it runs."""

import asyncio
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from stillroom.testing.refusal import Refusal, SandboxError
from stillroom.testing.sandbox.parameters import OF_ONE, Parameters, Values, shared
from stillroom.testing.sandbox.statements import Statement


@dataclass
class Savepoint:
    """What a ROLLBACK TO goes back to.

    It is set on the physical connection when its session has something to lose: one that only reads
    holds nobody up.
    """

    name: str
    parameters: Parameters
    is_read_only: bool
    applied: Values | None = None
    """The parameters of the physical connection when it was set there."""
    is_aside: bool = False
    """It is set on the connection for advisory locks."""

    @property
    def identifier(self) -> str:
        """Return its name as SQL, other than the sandbox's own savepoints."""
        return '"app ' + self.name.replace('"', '""') + '"'


@dataclass
class Transaction:
    """What a BEGIN began; `earlier` are the parameters that a rollback brings back."""

    earlier: Parameters
    is_read_only: bool
    isolation: str
    began: float = field(default_factory=time.monotonic)
    depth: int = 0
    """How many levels were wanted when it began: it ends with the innermost of them."""
    commits: int | None = None  # of the sandbox, when the first statement ran
    has_queried: bool = False
    has_failed: bool = False
    is_lost: bool = False
    refusal: str = ""
    """Why no statement may run in it; BEGIN itself must not fail, for a driver would not know."""
    savepoints: list[Savepoint] = field(default_factory=list[Savepoint])

    @property
    def words(self) -> str:
        """Return the modes in the words of a BEGIN."""
        access = "READ ONLY" if self.is_read_only else "READ WRITE"
        return f"ISOLATION LEVEL {self.isolation.upper()} {access}"

    def set_read_only(self, is_read_only: bool) -> None:
        """Change the mode. Raises SandboxError for a change that comes too late."""
        if self.is_read_only and not is_read_only:
            if self.savepoints and self.savepoints[-1].is_read_only:
                raise SandboxError(
                    "25001", "cannot set transaction read-write mode inside a read-only transaction"
                )
            if self.has_queried:
                raise SandboxError(
                    "25001", "transaction read-write mode must be set before any query"
                )
        self.is_read_only = is_read_only

    def set_isolation(self, isolation: str) -> None:
        """Change the isolation. Raises SandboxError for a change that comes too late."""
        self.refusal = _SERIALIZABLE if isolation == "serializable" else ""
        if isolation == self.isolation:
            return
        if self.has_queried or self.savepoints:
            when = "in a subtransaction" if self.savepoints else "after any query"
            raise SandboxError(
                "25001", f"SET TRANSACTION ISOLATION LEVEL must not be called {when}"
            )
        self.isolation = isolation

    def note(self, words: str) -> None:
        """Take the modes that BEGIN or SET TRANSACTION names."""
        if "READ ONLY" in words or "READ WRITE" in words:
            self.set_read_only("READ ONLY" in words)
        if found := re.search(r"ISOLATION LEVEL (READ \w+|REPEATABLE READ|SERIALIZABLE)", words):
            self.set_isolation(found[1].lower())


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
    is_ending: bool = False
    """Its connection is being closed: what it holds will be free without anybody's doing."""
    last_write: str = ""
    has_written: bool = False
    """What it does is seen by plain reads, and is more than locks and numbers of a sequence."""
    has_drawn: bool = False
    """It has written, and so may have drawn a number of a sequence."""
    depth: int = 0
    """How many levels are wanted, as far as the session knows."""
    _earlier: dict[int, Values] = field(default_factory=dict[int, Values])
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
        return is_on(self.parameters.effective().get("default_transaction_read_only"))

    @property
    def isolation(self) -> str:
        """Return the isolation of what runs next."""
        if self.transaction is not None:
            return self.transaction.isolation
        default = self.parameters.effective().get("default_transaction_isolation", "")
        return default.lower() or "read committed"

    def begin(self, words: str) -> None:
        """Begin a transaction; where there is one PostgreSQL warns, and takes the modes."""
        if self.transaction is not None:
            self.refuse_where_failed()
            self.transaction.note(words)
            return
        self.xid = ""
        transaction = Transaction(
            self.parameters.copy(), self.is_read_only, self.isolation, depth=self.depth
        )
        transaction.set_isolation(self.isolation)
        transaction.note(words)
        self.transaction = transaction

    def set_mode(self, name: str, value: str) -> None:
        """Change a mode of the transaction by the name of its parameter."""
        if self.transaction is None:
            return
        if name == "transaction_read_only":
            self.transaction.set_read_only(is_on(value))
        else:
            self.transaction.set_isolation(value.lower())

    def note(self, statements: Iterable[Statement]) -> None:
        """Remember what is about to run, for the messages of those who wait for it."""
        for statement in statements:
            self.statement = short(statement.text)
            self.never_waits = statement.never_waits

    def fail(self) -> None:
        """Abort the transaction, if there is one."""
        if self.transaction is not None:
            self.transaction.has_failed = True

    def enter(self, depth: int) -> None:
        """Remember what a level of this depth begins with.

        One that has gone on while its transaction was begun anew has begun before.
        """
        self._earlier.setdefault(depth, dict(self.parameters.session))

    def leave(self, depth: int) -> None:
        """Go back to what the level of this depth has begun with, which is over."""
        self.parameters.session = self._earlier.get(depth, Values())
        self._earlier = {known: it for known, it in self._earlier.items() if known < depth}

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
                "with the test",
                "Close sessions, and await tasks, before their test ends.",
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

    def wanted(self, mirrors: set[str]) -> Values:
        """Return the parameters to run under, with what the session has to be told of itself."""
        effective = self.parameters.effective()
        wanted = shared(effective)
        told = {
            **OF_ONE,
            **effective,
            "xid": self.xid,
            "transaction_isolation": self.isolation,
            "transaction_read_only": "on" if self.is_read_only else "off",
        }
        for name in mirrors:
            wanted[f"stillroom.{name}"] = told[name]
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


def is_on(value: str | None) -> bool:
    """Say whether a parameter's value is a true one."""
    return (value or "").lower() in ("on", "true", "1", "yes", "t")


_SERIALIZABLE = (
    "The transaction would be SERIALIZABLE: all connections share one transaction, so conflicts of "
    "SERIALIZABLE are never found"
)
_ABORTED = "current transaction is aborted, commands ignored until end of transaction block"
