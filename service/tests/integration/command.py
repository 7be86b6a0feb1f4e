"""The `alembic` command, as it is typed in a shell."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import SERVICE


def alembic(*arguments: str, folder: Path = SERVICE, **variables: str) -> str:
    """Run the command, with more variables in its environment; return its standard output."""
    result = subprocess.run(
        [sys.executable, "-m", "alembic", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    return result.stdout
