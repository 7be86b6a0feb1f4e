"""Measure what the plugin changes in a project that knows nothing of Stillroom."""

import shutil
import tempfile
from difflib import unified_diff
from functools import partial
from pathlib import Path

import machine
from pytest_runs import ASYNCIO, PROJECTS, STILLROOM, Suite, run
from report import Report, Row, Table
from rounds import interleave, is_quick

from stillroom.postgres import temporary_cluster, with_asyncpg

SETTINGS = """\
stillroom = true
stillroom_metadata = shop.models:Base.metadata
stillroom_app = shop.application:app
"""

METHOD = """\
projects/shop is a bookshop of five tables with models, an engine at module level and a session
dependency of its own, and {tests} tests, through HTTP and through a session. Its former fixtures
are the customary ones: a PostgreSQL by URL, all tables dropped and created for each test, the
dependency overridden, NullPool. The server that the URL names runs already, with all that
Stillroom's has for speed: in memory, nothing synced. With the plugin the settings have three
lines more, and conftest.py is gone; application and tests are the same. Wall time of the whole
process of pytest, which for Stillroom has the start of its server (the template is kept from an
earlier run), and the sum of the tests alone; median, minimum and maximum of {rounds} rounds, each
with both in another order."""


def main() -> None:
    """Measure, and write the results."""
    rounds = 3 if is_quick(__doc__) else 15
    before = machine.load()
    with tempfile.TemporaryDirectory() as folder, temporary_cluster() as cluster:
        cluster.create_database("shop_test")
        environ = {
            "DATABASE_URL": "postgresql+asyncpg://nobody@nowhere/x",
            "TEST_DATABASE_URL": with_asyncpg(cluster.url("shop_test")),
            "XDG_CACHE_HOME": folder,
        }
        former, adopted = Path(folder, "former"), Path(folder, "adopted")
        shutil.copytree(PROJECTS / "shop", former)
        _adopt(shutil.copytree(former, adopted))
        suites = {
            "Stillroom: sandbox": Suite(adopted, (*ASYNCIO, *STILLROOM), environ=environ),
            "the former fixtures": Suite(former, ASYNCIO, environ=environ),
        }
        tests = [len(run(suite).tests) for suite in suites.values()]
        found = interleave({name: partial(run, suite) for name, suite in suites.items()}, rounds)
        notes = [f"The whole change:\n\n```diff\n{_change(former, adopted)}```"]
    whole = [Row(name, [times.process for times in found[name]]) for name in suites]
    alone = [Row(name, [sum(times.tests) for times in found[name]]) for name in suites]
    Report(
        "adoption",
        "What does the plugin change in a project that knows nothing of Stillroom?",
        METHOD.format(tests=" and ".join(sorted({str(number) for number in tests})), rounds=rounds),
        machine.describe(before),
        [Table("The whole process", "s", whole), Table("The tests alone", "s", alone)],
        notes,
        machine.is_busy(),
    ).write()


def _adopt(project: Path) -> None:
    settings = project / "pytest.ini"
    settings.write_text(settings.read_text() + SETTINGS)
    (project / "shop/tests/conftest.py").unlink()


def _change(former: Path, adopted: Path) -> str:
    """Return the difference of the two folders."""
    files = sorted(
        {
            path.relative_to(folder)
            for folder in (former, adopted)
            for path in folder.rglob("*")
            if path.suffix in (".py", ".ini")
        }
    )
    return "".join(
        line
        for file in files
        for line in unified_diff(
            _lines(former / file), _lines(adopted / file), f"a/{file}", f"b/{file}"
        )
    )


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines(keepends=True) if path.exists() else []


if __name__ == "__main__":
    main()
