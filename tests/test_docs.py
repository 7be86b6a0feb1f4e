"""What the documents show is what runs."""

import re
from pathlib import Path

import pytest

from tests.projects import Project

DOCS = Path(__file__).parents[1] / "docs"
TESTING = (DOCS / "testing.md").read_text()
SHOWN = [path.read_text() for path in sorted((DOCS / "testing").iterdir()) if path.is_file()]
SERVICE = (DOCS.parent / "service" / "tests" / "integration" / "test_migrations.py").read_text()


@pytest.fixture
def shop(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Give the project of the page on tests."""
    return Project(DOCS / "testing", tmp_path_factory.getbasetemp() / "cache")


@pytest.mark.parametrize("block", re.findall(r"```(?:python|ini)\n(.*?)```", TESTING, re.DOTALL))
def test_each_block_stands_in_a_file_that_runs(block: str) -> None:
    """A block of code is a passage of the page's project, or of the service's tests."""
    assert any(block.rstrip("\n") in text for text in (*SHOWN, SERVICE))


def test_the_settings_of_the_page_are_all_that_its_project_has() -> None:
    """What passes here passes for who copies the page."""
    assert f"```ini\n{(DOCS / 'testing' / 'pytest.ini').read_text()}```" in TESTING


@pytest.mark.parametrize("isolation", ["sandbox", "clone"])
def test_the_tests_of_the_page_pass(shop: Project, isolation: str) -> None:
    """In both isolations, in any order."""
    outcome = shop.run(
        f"--stillroom-isolation={isolation}",
        "-W",
        "error",
        "-p",
        "randomly",
        "-p",
        "no:cacheprovider",
    )

    assert outcome.counts == "8 passed", outcome.output


def test_the_messages_of_the_page_are_those_that_one_sees(shop: Project) -> None:
    """Each question is a message that a test of the page's project fails with."""
    failing = ["failing.py", "-p", "no:cacheprovider", "--tb=short"]
    outcome = shop.run(*failing)
    without = shop.run(*failing, "-k", "forgotten", "-o", "stillroom_app=")
    empty = shop.run(*failing, "-k", "notification", "-o", "stillroom_metadata=")

    # Line by line, for an apostrophe of one line opens no literal of the next.
    lines = [line for run in (outcome, without, empty) for line in run.output.splitlines()]
    seen = " ".join(" ".join(map(_bare, lines)).split())
    assert outcome.counts == "10 failed, 1 passed", outcome.output
    assert [message for message in _messages() if message not in seen] == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_each_link_leads_somewhere(page: Path) -> None:
    """A relative link names a file or folder of the tree."""
    links = re.findall(r"\]\(([^)h#][^)#]*)[^)]*\)", page.read_text())

    assert [link for link in links if not (page.parent / link).exists()] == []


def _messages() -> list[str]:
    """Return the messages that stand as code in the page's questions, their statements left out."""
    questions = TESTING.partition("## Questions")[2]
    quoted = [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", questions)]
    messages = [_bare(text) for text in quoted if text.count(" ") > 3]
    assert len(messages) >= 8
    return messages


def _bare(text: str) -> str:
    """Leave out statements and the numbers of connections."""
    return re.sub(r"'[^']*'", "'...'", re.sub(r"Connection \d+|connection \d+", "connection", text))
