"""The laws that any application may be held to, on applications that break them."""

import re
from pathlib import Path

import pytest

from tests.projects import Outcome, Project

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "laws.md").read_text()
SHOWN = [path.read_text() for path in sorted((DOCS / "laws").iterdir()) if path.is_file()]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Hold all patterns of the page to the laws, once."""
    project = Project(DOCS / "laws", tmp_path_factory.getbasetemp() / "cache")
    return project.run("test_patterns.py", "-p", "no:cacheprovider", "--tb=short", "-rA")


def test_the_page_says_what_the_laws_find(outcome: Outcome) -> None:
    """Each cell of its table is what a test of this run says of the pattern."""
    found = re.findall(
        r"^(PASSED|FAILED) test_patterns\.py::(\w+)::(\w+)", outcome.output, re.MULTILINE
    )
    seen = {(pattern, law): result == "PASSED" for result, pattern, law in found}

    assert len(seen) == 54, outcome.output
    assert _table() == seen


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_each_block_of_the_page_stands_in_a_file_that_runs(block: str) -> None:
    """A block of code is a passage of the page's project."""
    assert any(block.rstrip("\n") in text for text in SHOWN)


def test_each_finding_says_what_to_do(outcome: Outcome) -> None:
    """The messages that the page quotes are those that one sees."""
    seen = " ".join(outcome.output.split())
    quoted = [" ".join(it.split()) for it in re.findall(r"^> (.*?)$", PAGE, re.MULTILINE)]

    assert len(quoted) >= 6
    assert [message for message in quoted if message not in seen] == []


@pytest.mark.full
def test_the_laws_hold_on_psycopg(project: Project) -> None:
    """They need no driver of the application's: the faults are in PostgreSQL."""
    (project.folder / "patterns.py").write_text(_of_psycopg("patterns"))
    (project.folder / "models.py").write_text(_of_psycopg("models"))
    (project.folder / "test_patterns.py").write_text((DOCS / "laws/test_patterns.py").read_text())
    outcome = project.run("test_patterns.py", "-k", "TestStillroom or TestTeardown")

    failed = set(re.findall(r"^FAILED test_patterns\.py::\w+::(\w+)", outcome.output, re.MULTILINE))
    assert outcome.counts == "4 failed, 14 passed, 36 deselected", outcome.output
    assert {("TestTeardown", law) for law in failed} == {
        cell for cell, holds in _table().items() if cell[0] == "TestTeardown" and not holds
    }


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ("", "Say what writes: def write(self, number: int) -> Request"),
        ('Request("POST", "/nowhere")', "`write` was answered 404 where nothing fails"),
        ('Request("GET", "/users")', "`write` was answered 200, and nothing is written"),
    ],
)
def test_a_request_that_cannot_be_right_is_told(
    project: Project, requests: str, message: str
) -> None:
    """A law that could see nothing does not pass."""
    write = f"\n    def write(self, number):\n        return {requests}" if requests else ""
    project.write(
        test_it="from stillroom.testing.laws import Request, ServiceLaws\n"
        f"class TestLaws(ServiceLaws):\n    pass{write}\n"
    )
    outcome = project.run("-k", "below_400")

    assert outcome.counts == "1 failed, 8 deselected", outcome.output
    assert message in outcome.output


def _of_psycopg(name: str) -> str:
    text = (DOCS / "laws" / f"{name}.py").read_text()
    return text.replace("postgresql+asyncpg://", "postgresql+psycopg://").replace(
        '"postgresql://', '"postgresql+psycopg://'
    )


def _table() -> dict[tuple[str, str], bool]:
    """Read the table of the page: by class and law, whether it holds."""
    rows = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]
    names, *laws = rows
    return {
        (f"Test{name.title().replace(' ', '')}", f"test_{law[0].replace(' ', '_')}"): cell
        == "holds"
        for law in laws
        for name, cell in zip(names[1:], law[1:], strict=True)
    }
