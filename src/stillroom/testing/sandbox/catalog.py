"""What the sandbox asks of PostgreSQL's catalog."""


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


# What the functions of PostgreSQL itself change, or hold until the end of the transaction.
WRITING_FUNCTIONS = {
    "NEXTVAL", "SETVAL", "LO_CREAT", "LO_CREATE", "LO_UNLINK", "LO_PUT", "LO_FROM_BYTEA",
    "LO_IMPORT", "LOWRITE", "LO_TRUNCATE", "PG_CURRENT_XACT_ID", "TXID_CURRENT",
}  # fmt: skip

VOLATILE = (
    "SELECT DISTINCT upper(proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace "
    "WHERE provolatile = 'v' AND nspname NOT IN ('pg_catalog', 'information_schema') "
    "AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')"
)
DEFERRABLE = (
    "SELECT format('%I.%I', nspname, conname), bool_or(condeferred) FROM pg_constraint "
    "JOIN pg_namespace n ON n.oid = connamespace WHERE condeferrable GROUP BY 1"
)
SEQUENCES = (
    "SELECT seqrelid, pg_sequence_last_value(seqrelid) FROM pg_sequence "
    "WHERE pg_sequence_last_value(seqrelid) IS NOT NULL"
)
