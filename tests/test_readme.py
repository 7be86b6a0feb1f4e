"""What the README shows is what is in the files."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SOURCES = [
    path.read_text()
    for folder in ("app", "tests")
    for path in (ROOT / "service" / folder).rglob("*.py")
]


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_each_python_block_stands_in_the_service(block: str) -> None:
    """A block of code in the README is a passage of a file of the service, to the letter."""
    assert any(block in source for source in SOURCES)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)h][^)]*)\)", README))
def test_each_link_leads_somewhere(link: str) -> None:
    """A relative link names a file or folder of the tree."""
    assert (ROOT / link).exists()


def test_the_readme_is_short() -> None:
    """It is read in a few minutes: at most 140 lines, a table of figures included."""
    assert len(README.splitlines()) <= 140
