"""Each test of this folder runs on each of the targets."""

import pytest

from tests.testing.conftest import Target


@pytest.fixture(autouse=True)
def everywhere(target: Target) -> None:
    """Send every engine to the target, of tests that make their engines by themselves too."""
