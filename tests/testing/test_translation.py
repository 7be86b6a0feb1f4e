"""Names and answers that are one connection's own."""

from collections.abc import Set as AbstractSet

import pytest

from stillroom.testing.sandbox.statements import read_statements
from stillroom.testing.sandbox.translation import Translation, mirrored

XID = "current_setting('stillroom.xid', true)"
ISOLATION = "current_setting('stillroom.transaction_isolation', true)"


@pytest.mark.parametrize(
    ("sql", "sent", "told"),
    [
        (
            "SELECT pg_catalog.PG_Current_Xact_Id_If_Assigned ( ), txid_current_if_assigned()",
            f"SELECT nullif({XID}, '')::xid8, nullif({XID}, '')::int8",
            {"xid"},
        ),
        (
            "show transaction isolation level",
            f"SELECT {ISOLATION} AS transaction_isolation",
            {"transaction_isolation"},
        ),
        (
            "SELECT 'SHOW transaction_isolation'",
            "SELECT 'SHOW transaction_isolation'",
            frozenset[str](),
        ),
    ],
)
def test_what_all_would_be_told_alike_is_read_from_parameters(
    sql: str, sent: str, told: AbstractSet[str]
) -> None:
    """In any case and form; the rest of the text is left alone."""
    (statement,) = statements = read_statements(sql)

    assert Translation(7).of(statements, sql) == sent
    assert mirrored(statement) == told


def test_names_of_cursors_and_statements_get_a_number() -> None:
    """Those that the connection has made, wherever they are used; others are left alone."""
    translation = Translation(7)

    def sent(sql: str) -> str:
        return translation.of(read_statements(sql), sql)

    assert sent("FETCH here") == "FETCH here"
    assert sent('declare Here cursor for select "here"') == (
        'declare "7.here" cursor for select "here"'
    )
    assert sent("fetch 2 from HERE") == 'fetch 2 from "7.here"'
    assert sent("DELETE FROM a WHERE CURRENT OF here") == 'DELETE FROM a WHERE CURRENT OF "7.here"'
    assert sent("PREPARE p AS SELECT 1; EXECUTE p; DEALLOCATE p") == (
        'PREPARE "7.p" AS SELECT 1; EXECUTE "7.p"; DEALLOCATE "7.p"'
    )
    assert translation.back(b'cursor "7.here" does not exist') == b'cursor "here" does not exist'
