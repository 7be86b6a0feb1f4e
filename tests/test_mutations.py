"""The list of guards is one of lines that stand in the sources."""

import ast
from pathlib import Path

import pytest

from tests.mutations import MUTATIONS, ROOT, Mutation

SOURCE = ROOT / "src" / "stillroom"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.guard)
def test_a_guard_stands_where_the_list_says(mutation: Mutation) -> None:
    """Once in its file, and its test is there, so that taking it out takes it out.

    What is left is Python, for any test fails on what cannot be imported.
    """
    text = (SOURCE / mutation.file).read_text()
    assert text.count(mutation.line) == 1
    ast.parse(text.replace(mutation.line, mutation.without))
    assert Path(ROOT, mutation.test.partition("::")[0]).exists()
