"""Run files of SQLAlchemy's own suite on a plain connection and in the sandbox, and compare.

`python -m tests.sqlalchemy_suite` fails for a difference that `results.json` does not name;
`--write` writes that file. The suite is that of the installed version, from its source
distribution, whose hash requirements.lock has.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict, cast

import asyncpg
import pytest

from stillroom.postgres import Cluster, temporary_cluster, with_asyncpg
from tests.sqlalchemy_suite.plugin import Outcome

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).with_name("results.json")
FILES = [
    "test/dialect/postgresql/test_async_pg.py",
    "test/engine/test_transaction.py",
    "test/orm/test_transaction.py",
    "test/ext/asyncio/test_engine.py",
    "test/ext/asyncio/test_session.py",
]

TRAP = "postgresql+asyncpg://nobody@database.invalid/nothing"
"""The URL of engines in the sandbox: who connects there by itself gets an error."""

SCHEMAS = "CREATE SCHEMA test_schema; CREATE SCHEMA test_schema_2"
"""What SQLAlchemy's README.unittests.rst asks for."""

CAUSES = {
    "refused: it would end the connection that all share": "may end the one connection",
    "refused: a prepared transaction would outlive the test": "would outlive the test",
    "refused: SERIALIZABLE": "conflicts of SERIALIZABLE are never found",
    "refused: a task reads beside its own uncommitted writes": "the same task holds both",
    "refused: an older snapshot": "has no older snapshot",
    "refused: a connection past the engines": "for a connection past the engines",
    "not emulated: which transactions are in progress": "eq_(trans_exists, 0)",
}
"""The causes of differences that are by design, and what a refusal or an error says."""

UNEXPLAINED = "unexplained"

Outcomes = dict[str, Outcome]


class Count(TypedDict):
    """Say how many tests of a file pass where."""

    plain: int
    sandbox: int


class Results(TypedDict):
    """Hold what `results.json` has; a difference has the name of its test, and its cause."""

    versions: dict[str, str]
    files: dict[str, Count]
    causes: dict[str, int]
    differences: dict[str, str]


def main() -> int:
    """Run, compare, print a table; return 1 where a difference is new."""
    parser = argparse.ArgumentParser(prog="python -m tests.sqlalchemy_suite")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _cluster() as cluster:
        suite = _download(Path(folder))
        plain = _run(suite, cluster, is_sandbox=False)
        sandbox = _run(suite, cluster, is_sandbox=True)
        results = _compare(plain, sandbox, cluster.version)
    _print(results)
    if arguments.write:
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
        return 0
    known = json.loads(RESULTS.read_text())["differences"]
    new = [test for test, cause in results["differences"].items() if known.get(test) != cause]
    for test in new:
        print(f"\n{test}, which {RESULTS.name} does not name:\n{_text(sandbox[test])}")
    return 1 if new else 0


def _cluster() -> AbstractContextManager[Cluster]:
    return temporary_cluster(settings={"max_prepared_transactions": "10"})


def _download(folder: Path) -> Path:
    """Return the folder of the suite that belongs to the installed SQLAlchemy."""
    release = version("sqlalchemy")
    lock = (ROOT / "requirements.lock").read_text()
    locked = re.search(
        rf"^sqlalchemy=={re.escape(release)}( \\\n +--hash=\S+)+", lock, re.MULTILINE
    )
    if locked is None:
        msg = f"requirements.lock has no sqlalchemy {release}, which is installed: scripts/lock"
        raise SystemExit(msg)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    what = ["--no-deps", "--no-binary=sqlalchemy", "--require-hashes", "--requirement=/dev/stdin"]
    subprocess.run([*pip, *what, f"--dest={folder}"], input=locked[0], text=True, check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def _run(suite: Path, cluster: Cluster, *, is_sandbox: bool) -> Outcomes:
    """Run the files in a process of their own, which imports the installed SQLAlchemy."""
    name = "sandbox" if is_sandbox else "plain"
    cluster.create_database(name)
    asyncio.run(_make_schemas(cluster.url(name)))
    file = suite / f"{name}.json"
    command = [sys.executable, "-s", "-m", "pytest", *FILES, f"--outcomes={file}"]
    command += ["-p", "tests.sqlalchemy_suite.plugin", "--disable-plugin-autoload", "--maxfail=0"]
    command += ["-o", "faulthandler_timeout=60", "-o", "faulthandler_exit_on_timeout=true"]
    if is_sandbox:
        command += [f"--dburi={TRAP}", f"--sandbox-url={cluster.url(name)}"]
    else:
        command += [f"--dburi={with_asyncpg(cluster.url(name))}"]
    ended = subprocess.run(
        command,
        cwd=suite,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0"},  # tests pick from sets
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    if ended.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"{ended.stdout}\n{ended.stderr}\nSQLAlchemy's suite did not run: {name}")
    outcomes: Outcomes = json.loads(file.read_text())
    return outcomes


async def _make_schemas(url: str) -> None:
    connection = await cast("Any", asyncpg).connect(url)
    await connection.execute(SCHEMAS)
    await connection.close()


def _compare(plain: Outcomes, sandbox: Outcomes, postgresql: str) -> Results:
    """Count what passes; a difference is what passes on a plain connection alone."""
    differences = {
        test: _cause(sandbox[test])
        for test, outcome in plain.items()
        if outcome["outcome"] == "passed" and not _passed(sandbox[test])
    }
    files = {
        file: Count(
            plain=sum(_passed(it) for test, it in plain.items() if test.startswith(file)),
            sandbox=sum(_passed(it) for test, it in sandbox.items() if test.startswith(file)),
        )
        for file in FILES
    }
    return Results(
        versions={
            "python": platform.python_version(),
            "sqlalchemy": version("sqlalchemy"),
            "asyncpg": version("asyncpg"),
            "postgresql": postgresql,
        },
        files=files,
        causes=dict(Counter(differences.values()).most_common()),
        differences=differences,
    )


def _passed(outcome: Outcome) -> bool:
    """Say whether a test passes as with the plugin, which fails it for a refusal passed over."""
    return outcome["outcome"] == "passed" and not outcome["refusals"]


def _cause(outcome: Outcome) -> str:
    text = _text(outcome)
    return next((cause for cause, said in CAUSES.items() if said in text), UNEXPLAINED)


def _text(outcome: Outcome) -> str:
    return "\n".join([*outcome["refusals"], outcome["errors"]])


def _print(results: Results) -> None:
    print(", ".join(f"{name} {number}" for name, number in results["versions"].items()))
    print(f"{'':<45}{'plain':>8}{'sandbox':>9}")
    for file, count in results["files"].items():
        print(f"{file:<45}{count['plain']:>8}{count['sandbox']:>9}")
    for cause, number in results["causes"].items():
        print(f"{number:>5}  {cause}")


if __name__ == "__main__":
    sys.exit(main())
