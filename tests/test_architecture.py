"""The arrows: which part of the library may import which, and where each foreign package enters."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "stillroom"

PARTS = {
    "errors": ["errors"],
    "redaction": ["redaction", "routes"],
    "bulk": ["bulk"],
    "pages": ["joins", "pages"],
    "model": ["model"],
    "postgres": ["postgres"],
    "workers": ["workers"],
    "manager": ["deferred", "ending", "engine", "manager", "session", "url"],
    "migrations": ["migrations"],
    "problems": ["problems"],
    "json": ["json"],
    "idempotency": ["idempotency"],
    "fastapi": ["fastapi"],
    "testing": ["testing"],
    "pytest_plugin": [
        "pytest_plugin",
        "pytest_coroutines",
        "pytest_fixtures",
        "pytest_outcomes",
        "pytest_processes",
        "pytest_run",
    ],
    "cli": ["cli", "development", "serving"],
    "__init__": ["__init__"],
}
"""The modules of each part; a package stands for all that is in it."""

LAYERS = [
    {"errors"},
    {"bulk", "redaction"},
    {"pages", "model", "postgres", "workers"},
    {"manager"},
    {"migrations", "problems", "json", "idempotency"},
    {"fastapi", "testing"},
    {"pytest_plugin", "cli"},
    {"__init__"},
]
"""The parts from the ground up: one imports from below its own layer alone."""

DOORS = {
    "alembic": {"migrations"},
    "anyio": {"bulk", "fastapi", "json", "manager"},
    "asyncpg": {"manager", "testing"},
    "fastapi": {"fastapi"},
    "greenlet": {"testing"},
    "httpx2": {"pytest_plugin", "testing"},
    "psycopg": {"manager"},
    "pydantic": {"fastapi", "json"},
    "pytest": {"pytest_plugin"},
    "sqlalchemy": {
        "bulk",
        "model",
        "pages",
        "manager",
        "migrations",
        "problems",
        "json",
        "idempotency",
        "fastapi",
        "testing",
        "pytest_plugin",
    },
    "starlette": {"fastapi", "testing", "pytest_plugin"},
    "typer": {"cli"},
    "uvicorn": {"cli"},
    "watchfiles": {"cli"},
}
"""The foreign packages, each with the parts that may import it."""

PLUGIN_IMPORTS_LAZILY = {
    "stillroom.manager",
    "stillroom.postgres",
    "stillroom.pytest_fixtures",
    "stillroom.pytest_outcomes",
    "stillroom.testing.client",
    "stillroom.testing.named",
    "stillroom.testing.queries",
    "stillroom.testing.databases.revisions",
    "stillroom.testing.run",
    "stillroom.testing.databases.server",
    "stillroom.testing.databases.tables",
    "stillroom.testing.databases.template",
}
"""What the plugin's fixtures import when they run, so that loading the plugin costs little."""


class Import(NamedTuple):
    """One module imported by another, both by their full names."""

    importer: str
    imported: str
    is_lazy: bool

    def __str__(self) -> str:
        """Read as a sentence."""
        return f"{self.importer} imports {self.imported}"


def test_every_module_belongs_to_a_part() -> None:
    """A new module is put in its place before it is used."""
    known = {module for part in PARTS.values() for module in part}

    assert {_top(module) for module, _ in _modules()} - known == set()
    assert PARTS.keys() == set().union(*LAYERS)


def test_a_part_imports_from_below_alone() -> None:
    """The arrows point one way: from the command and the plugin down to the errors."""
    height = {part: number for number, layer in enumerate(LAYERS) for part in layer}

    assert [
        str(found)
        for found in _inner()
        if (here := _part(found.importer)) != (there := _part(found.imported))
        and height[here] <= height[there]
    ] == []


def test_no_module_imports_itself_by_a_detour() -> None:
    """The modules can be read in an order in which none needs a later one."""
    graph: dict[str, set[str]] = {}
    for found in _inner():
        if not found.is_lazy:
            graph.setdefault(found.importer, set()).add(found.imported)

    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the ring


def test_a_foreign_package_enters_by_its_door() -> None:
    """Each foreign package is known to the parts that are named for it, and to no other."""
    foreign = [found for found in _imports() if not _is_inner(found) and not _is_standard(found)]

    assert [
        str(found)
        for found in foreign
        if _part(found.importer) not in DOORS.get(found.imported.partition(".")[0], set())
    ] == []


def test_the_library_never_imports_the_service() -> None:
    """The service stands on the library, which knows of none."""
    names = {found.imported.partition(".")[0] for found in _imports()}

    assert not names & {"app", "larder", "run", "tests"}


def test_the_plugin_imports_the_library_lazily() -> None:
    """Pytest pays for what a test asks for: the plugin itself imports pytest and the errors."""
    plugin = [found for found in _inner() if _part(found.importer) == "pytest_plugin"]

    always = {x.imported for x in plugin if not x.is_lazy}
    assert {name for name in always if _part(name) != "pytest_plugin"} <= {"stillroom.errors"}
    assert {x.imported for x in plugin if x.is_lazy} == PLUGIN_IMPORTS_LAZILY


def test_importing_the_package_costs_nothing() -> None:
    """`import stillroom` loads no foreign package; its names are loaded when they are used."""
    script = "import sys; known = {*sys.modules}; import stillroom; print(*{*sys.modules} - known)"
    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()

    assert "stillroom" in loaded
    assert not {name.partition(".")[0] for name in loaded} & DOORS.keys()


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        ("import sqlalchemy.orm", "sqlalchemy.orm"),
        ("from stillroom import session", "stillroom.session"),
        ("from stillroom.fastapi import install", "stillroom.fastapi"),
        ("def f():\n    from .manager import x", "stillroom.manager"),
    ],
)
def test_the_arrows_see_every_form_of_import(source: str, imported: str) -> None:
    """No way to write an import escapes the tests above."""
    assert [found.imported for found in _read("stillroom.any", source)] == [imported]


def _inner() -> Iterator[Import]:
    return (found for found in _imports() if _is_inner(found))


def _imports() -> Iterator[Import]:
    for module, path in _modules():
        yield from _read(module, path.read_text())


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        yield ".".join(parts if len(parts) == 2 or parts[-1] != "__init__" else parts[:-1]), path


def _read(module: str, source: str) -> Iterator[Import]:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for name in _names(node):
            if name != module:
                yield Import(module, name, is_lazy=node not in tree.body)


def _names(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names):
            yield from (alias.name for alias in names)
        case ast.ImportFrom(module, names, level):
            package = ".".join(filter(None, ["stillroom" if level else None, module]))
            for alias in names:
                is_module = package == "stillroom" and _is_module(alias.name)
                yield f"{package}.{alias.name}" if is_module else package
        case _:
            return


def _is_module(name: str) -> bool:
    return (SOURCE / name).is_dir() or (SOURCE / f"{name}.py").is_file()


def _part(module: str) -> str:
    top = _top(module)
    return next((part for part, modules in PARTS.items() if top in modules), top)


def _top(module: str) -> str:
    return module.split(".")[1]


def _is_inner(found: Import) -> bool:
    return found.imported.startswith("stillroom.")


def _is_standard(found: Import) -> bool:
    return found.imported.partition(".")[0] in sys.stdlib_module_names
