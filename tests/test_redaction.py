"""What is left of an error when its values are gone."""

import json
import traceback

import pytest
from pydantic import BaseModel
from sqlalchemy.exc import StatementError

from stillroom.errors import DatabaseUnavailableError, RowError
from stillroom.redaction import describe, redacted
from stillroom.redaction.description import without_literals

SECRET = "zaun" + "koenig"  # as a text of its own it would be a word of the source


class Number(BaseModel):
    """Hold a number by its name."""

    numbers: dict[str, int]


def raised(action: object) -> BaseException:
    """Return what an action raises, as it was raised."""
    try:
        action()  # type: ignore[operator]
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError


def test_of_a_message_the_words_of_the_source_are_left() -> None:
    """A text of the file is shown as it is; what was put into one is not."""

    def whole() -> None:
        msg = "nothing of it was computed"
        raise LookupError(msg)

    def in_parts() -> None:
        raise LookupError(f"there is no {SECRET} among {len(SECRET)} birds of this wood")

    def by_percent() -> None:
        raise LookupError("the bird %r sings today" % SECRET)  # noqa: UP031

    assert describe(raised(whole)) == "nothing of it was computed"
    assert describe(raised(in_parts)) == "there is no … birds of this wood"
    assert describe(raised(by_percent)) == "the bird … sings today"


def test_what_the_interpreter_says_is_kept_but_for_names_that_are_made_up() -> None:
    """The names of the source are no values; one that came with a request may be."""
    nothing: object = None

    assert describe(raised(lambda: nothing.birds)) == (  # type: ignore[attr-defined]
        "'NoneType' object has no attribute 'birds'"
    )
    assert describe(raised(lambda: getattr(nothing, SECRET))) == (
        "'NoneType' object has no attribute '…'"
    )
    assert describe(raised(lambda: 1 / 0)) == "division by zero"
    assert describe(raised(lambda: {"a": 1}[SECRET])) == "…"
    assert describe(raised(lambda: json.loads("{" + SECRET))) == (
        "Expecting property name enclosed in double quotes: line …"
    )


def test_an_error_of_the_system_has_its_number() -> None:
    """Its file name, or the address, is left out."""
    assert describe(raised(lambda: open(f"/{SECRET}"))) == "[Errno 2] No such file or directory"  # noqa: PTH123, SIM115
    refused = ConnectionRefusedError(111, f"Connect call failed ({SECRET!r}, 1)")
    assert describe(refused) == "[Errno 111] Connection refused"


def test_a_validator_names_places_and_kinds() -> None:
    """A key that somebody made up is no place."""
    error = raised(lambda: Number.model_validate({"numbers": {f"{SECRET} {SECRET}": "x"}}))

    assert describe(error) == "1 values are not valid: numbers.… (int_parsing)"


def test_the_errors_of_stillroom_are_whole_but_for_what_they_quote() -> None:
    """They are made of names and numbers; the words of a cause are replaced by what is left."""
    row = RowError(f"Row 3 of Bird has a bad 'size': no number: {SECRET}")
    row.__cause__ = ValueError(f"no number: {SECRET}")
    away = DatabaseUnavailableError("No connection to PostgreSQL, host h: refused")
    away.__cause__ = OSError("refused")

    assert describe(row) == "Row 3 of Bird has a bad 'size': …"
    assert describe(away) == str(away)


def test_an_error_of_sqlalchemy_without_a_sqlstate_has_its_statement() -> None:
    """A value that could not be bound is not quoted."""
    error = StatementError("no", f"SELECT '{SECRET}'", {}, ValueError(SECRET))

    assert describe(error) == "ValueError, …, [SQL: SELECT …]"


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("SELECT $1, %s, %(name)s, :it, a1", "SELECT $1, %s, %(name)s, :it, a1"),
        ("SELECT 'x''y', 1.5e3, b", "SELECT …, …, b"),
        (r"SELECT E'x\'y', 'x\', b", "SELECT …, …, b"),
        ("SELECT U&'x', \"it's\", 'y'", 'SELECT U…, "it\'s", …'),
        ("SELECT $$x$$, $a$ $$ y $a$, b", "SELECT …, …, b"),
        ("SELECT 1 -- x\n, b /* y */", "SELECT … …\n, b …"),
        ("SELECT 'unfinished", "SELECT …"),
    ],
)
def test_no_literal_of_a_statement_is_shown(statement: str, shown: str) -> None:
    """Parameters and quoted names stay, in each of PostgreSQL's ways to write a text."""
    assert without_literals(statement) == shown


def test_a_copy_is_chained_as_the_error_is() -> None:
    """Frames, causes, contexts and groups are there, rings too; notes are not."""

    def chain() -> None:
        try:
            raise ValueError(SECRET)  # noqa: TRY301
        except ValueError as error:
            group = ExceptionGroup("several things", [error, KeyError(SECRET)])
            group.add_note(SECRET)
            raise group from error

    error = raised(chain)
    first = error.__cause__
    assert first is not None
    first.__context__ = error

    copy = redacted(error)
    text = "".join(traceback.format_exception(copy))

    assert SECRET not in text
    assert "in chain" in text
    assert "ExceptionGroup: several things (2 sub-exceptions)" in text
    assert redacted(copy) is copy


def test_an_error_that_cannot_be_shown_is_still_logged() -> None:
    """Whatever an exception does in its own methods."""

    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe(BrokenError()) == "…"
