"""What the sandbox asks of PostgreSQL's catalog."""

from collections.abc import Iterable

from stillroom.testing.sandbox.statements import Kind, Statement
from stillroom.testing.wire.backend import Backend


async def read_checks(backend: Backend) -> str:
    """Return the SQL that checks what PostgreSQL checks at a COMMIT."""
    rows = await backend.query(_DEFERRABLE)
    deferred = ", ".join(str(name) for name, is_deferred in rows if is_deferred == "t")
    checks = "SET CONSTRAINTS ALL IMMEDIATE; " if rows else ""
    return checks + (f"SET CONSTRAINTS {deferred} DEFERRED; " if deferred else "")


async def read_sequences(backend: Backend) -> dict[str, str]:
    """Return the last number that each sequence has given, by the sequence's oid."""
    return {str(oid): str(value) for oid, value in await backend.query(_SEQUENCES)}


def reset_sequences(values: dict[str, str]) -> str:
    """Return the SQL that gives sequences the values that were read, and a start to new ones."""
    known = ", ".join(f"({oid}::oid, {value}::bigint)" for oid, value in values.items())
    return (
        "SELECT setval(s.seqrelid, coalesce(b.value, s.seqstart), b.value IS NOT NULL) "
        f"FROM pg_sequence s LEFT JOIN (VALUES {known or '(0::oid, 0::bigint)'}) "
        "b(oid, value) "
        "ON b.oid = s.seqrelid "
        "WHERE pg_sequence_last_value(s.seqrelid) IS DISTINCT FROM b.value"
    )


class Writers:
    """Know by which functions and views a statement may write that looks like a read.

    Names that have been known once stay known, for a rollback brings back what was renamed.
    """

    def __init__(self) -> None:
        self.are_stale = True
        """They have to be read before they are asked for again."""
        self._may_roll_back = False  # the schema has changed, and a rollback may change it back
        self._functions = set(_WRITING_FUNCTIONS)
        self._views: set[str] = set()
        self._acts_on_no_rows = False  # a trigger or a rule that a write of no rows sets off too

    def learn(self, rows: Iterable[Iterable[str | None]]) -> None:
        """Take what WRITERS has found."""
        self._acts_on_no_rows = False
        for what, name in rows:
            if what == "trigger":
                self._acts_on_no_rows = True
            else:
                (self._functions if what == "function" else self._views).add(str(name))
        self.are_stale = False

    def note_change(self) -> None:
        """Note that the schema may have changed."""
        self.are_stale = self._may_roll_back = True

    def note_rollback(self) -> None:
        """Note that changes may be gone."""
        self.are_stale = self.are_stale or self._may_roll_back

    def may_do_anything(self, statement: Statement) -> bool:
        """Say whether it calls a function of the application's that may do what any statement may.

        What it says is not read: it may change the schema too.
        """
        return not statement.functions.isdisjoint(self._functions - _WRITING_FUNCTIONS)

    def wrote(self, statement: Statement, *, no_rows: bool) -> bool:
        """Say whether what ran may have changed what others read; `no_rows` is what its tag says.

        Rows that are locked and numbers of a sequence are nothing that a plain read would see.
        """
        if statement.functions & (self._functions - _UNSEEN) or statement.names & self._views:
            return True
        if statement.only_changes_rows:
            return self._acts_on_no_rows or not no_rows
        return statement.kind is Kind.WRITE and not statement.only_locks

    def may_write(self, statement: Statement) -> bool:
        """Say whether a statement may change anything, or hold it until its transaction ends."""
        return (
            statement.kind is Kind.WRITE
            or not statement.functions.isdisjoint(self._functions)
            or not statement.names.isdisjoint(self._views)
        )


# What the functions of PostgreSQL itself change, or hold until the end of the transaction.
_WRITING_FUNCTIONS = {
    "NEXTVAL", "SETVAL", "LO_CREAT", "LO_CREATE", "LO_UNLINK", "LO_PUT", "LO_FROM_BYTEA",
    "LO_IMPORT", "LOWRITE", "LO_TRUNCATE", "PG_CURRENT_XACT_ID", "TXID_CURRENT",
}  # fmt: skip

_UNSEEN = {"NEXTVAL", "SETVAL", "PG_CURRENT_XACT_ID", "TXID_CURRENT"}

# A trigger may act where a tag counts no row, unless it is AFTER and FOR EACH ROW (1 of 67).
# A view is one that calls such a function, or reads from such a view.
WRITERS = (
    "WITH RECURSIVE volatile AS ("
    "SELECT p.oid, proname FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace "
    "WHERE provolatile = 'v' AND nspname NOT IN ('pg_catalog', 'information_schema') "
    "AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')), "
    "used AS (SELECT ev_class, refclassid, refobjid FROM pg_depend "
    "JOIN pg_rewrite r ON r.oid = objid JOIN pg_class c ON c.oid = ev_class "
    "WHERE classid = 'pg_rewrite'::regclass AND relkind = 'v'), "
    "view AS (SELECT ev_class FROM used JOIN volatile v ON v.oid = refobjid "
    "WHERE refclassid = 'pg_proc'::regclass "
    "UNION SELECT used.ev_class FROM used JOIN view v ON v.ev_class = refobjid "
    "WHERE refclassid = 'pg_class'::regclass) "
    "SELECT 'function', upper(proname) FROM volatile "
    "UNION SELECT 'view', upper(relname) FROM view JOIN pg_class c ON c.oid = ev_class "
    "UNION SELECT 'trigger', '' FROM pg_trigger WHERE NOT tgisinternal AND tgtype & 67 <> 1 "
    "UNION SELECT 'trigger', '' FROM pg_rewrite WHERE ev_type <> '1' AND oid >= 16384"
)
_DEFERRABLE = (
    "SELECT format('%I.%I', nspname, conname), bool_or(condeferred) FROM pg_constraint "
    "JOIN pg_namespace n ON n.oid = connamespace WHERE condeferrable GROUP BY 1"
)
_SEQUENCES = (
    "SELECT seqrelid, pg_sequence_last_value(seqrelid) FROM pg_sequence "
    "WHERE pg_sequence_last_value(seqrelid) IS NOT NULL"
)
