"""The fault suite's own judgement; `scripts/faults` makes the faults."""

from tests.faults.answer import Answer
from tests.faults.report import is_drawn
from tests.faults.sets import Outcome, Verdict, check, outcome

NOTHING = frozenset[str]()


def test_a_history_that_fits_holds() -> None:
    """What was acknowledged is there, what failed is not, and of the rest either is right."""
    history: dict[str, Outcome] = {"a": "ok", "b": "fail", "c": "info", "d": "info"}

    assert check(history, ["a", "c"]) == Verdict(NOTHING, NOTHING, NOTHING, NOTHING)


def test_what_is_lost_revived_invented_or_doubled_is_found() -> None:
    """A checker that has never found anything shows nothing."""
    verdict = check({"a": "ok", "b": "fail", "c": "info"}, ["b", "c", "c", "d"])

    assert [*verdict.lost, *verdict.revived] == ["a", "b"]
    assert [*verdict.invented, *verdict.doubled] == ["d", "c"]
    assert not verdict.holds


def test_only_an_answer_that_says_so_leaves_an_outcome_open() -> None:
    """A 503 means that nothing was written, unless it says that nobody knows."""
    assert outcome(Answer("/", 0, 0, 201)) == "ok"
    assert outcome(Answer("/", 0, 0, 503)) == "fail"
    assert outcome(Answer("/", 0, 0, 503, says_unknown=True)) == "info"
    assert outcome(Answer("/", 0, 0, 0)) == "info"


def test_the_table_of_the_page_is_what_was_measured() -> None:
    """No figure is changed by hand."""
    assert is_drawn()
