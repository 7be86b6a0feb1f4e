"""What became of each test of a run, in a file: how two runs are compared."""

import json
from pathlib import Path
from typing import Any

import pytest


class Outcomes:
    """Collect the outcomes of all tests, and write them when the run ends.

    The process that controls those of pytest-xdist gets all reports.
    """

    def __init__(self, config: pytest.Config, file: Path) -> None:
        """Take the file; it is written whole or not at all."""
        self._config = config
        self._file = file
        self._outcomes: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what a phase of a test makes of it; the last phase that says something wins."""
        status: tuple[str, ...] = self._config.hook.pytest_report_teststatus(
            report=report, config=self._config
        )
        if status[0]:
            self._outcomes[report.nodeid] = (status[0], _reason(report))

    def pytest_sessionfinish(self) -> None:
        """Write the file, as JSON: by the name of each test its outcome and the reason."""
        self._file.write_text(json.dumps(self._outcomes))


def _reason(report: pytest.TestReport) -> str:
    """Return the first line of what pytest shows of a failure; nothing for a success."""
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2]
    crash: Any = getattr(report.longrepr, "reprcrash", None)
    message = str(report.longrepr or "") if crash is None else str(crash.message)
    return message.partition("\n")[0]
