"""The results of the benchmarks."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_tables_and_plots_are_what_the_figures_say() -> None:
    """No figure is changed by hand: what is read is made from what was measured."""
    for name in ("report.py", "readme.py"):
        check = [sys.executable, str(BENCHMARKS / name), "--check"]
        answer = subprocess.run(check, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stderr
    assert {path.stem for path in (BENCHMARKS / "results").glob("*.json")} == {
        "adoption",
        "bulk",
        "export",
        "faults",
        "isolation",
        "orm",
        "pages",
        "profiles",
        "scale",
        "servers",
        "startup",
        "suite",
        "throughput",
    }
