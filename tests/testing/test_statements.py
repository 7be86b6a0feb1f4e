"""What the sandbox reads in SQL."""

import pytest

from stillroom.testing.sandbox.statements import Kind, read_statements


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("select 1", Kind.READ),
        ("-- insert\nselect 1", Kind.READ),
        ("/* a /* b */ update */ select 'delete'", Kind.READ),
        ('select "update" from "delete"', Kind.READ),
        ("select $$ insert $$, $a$ delete $$ $a$", Kind.READ),
        ("with x as (select 1) select * from x", Kind.READ),
        ("with x as (delete from a returning 1) select * from x", Kind.WRITE),
        ("select * from a for update", Kind.WRITE),
        ("select * from a for no key update of a", Kind.WRITE),
        ("select * into b from a", Kind.WRITE),
        ("(select 1) union (select 2)", Kind.READ),
        ("values (1)", Kind.READ),
        ("show work_mem", Kind.READ),
        ("explain select 1", Kind.READ),
        ("explain analyze delete from a", Kind.WRITE),
        ("copy a to stdout", Kind.READ),
        ("copy a from stdin", Kind.WRITE),
        ("copy (select * from a) to stdout", Kind.READ),
        ("call p()", Kind.WRITE),
        ("do $$ begin end $$", Kind.WRITE),
        ("lock table a", Kind.WRITE),
        ("frobnicate", Kind.WRITE),
        ("begin", Kind.CONTROL),
        ("START TRANSACTION READ ONLY", Kind.CONTROL),
        ("rollback to savepoint a", Kind.CONTROL),
        ("end", Kind.CONTROL),
        ("set transaction read only", Kind.CONTROL),
        ("set work_mem = '8MB'", Kind.READ),
    ],
)
def test_a_statement_is_known_by_its_words(sql: str, kind: Kind) -> None:
    """Comments, literals and quoted names say nothing; what is unknown is taken for a write."""
    (statement,) = read_statements(sql)

    assert statement.kind is kind


def test_a_text_is_cut_at_its_semicolons() -> None:
    """Not at those of literals, comments, dollar quotes and bodies of routines."""
    sql = (
        "select ';'; select $a$;$a$; /* ; */ ;"
        "create function f() returns int begin atomic select 1; select 2; end; select 3"
    )

    assert [statement.words.split()[0] for statement in read_statements(sql)] == [
        "SELECT",
        "SELECT",
        "CREATE",
        "SELECT",
    ]
