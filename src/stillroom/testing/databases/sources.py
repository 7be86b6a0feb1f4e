"""The source files of a project: which modules import which, and a word for their content."""

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path


def digest(paths: Iterable[Path]) -> str:
    """Return a word that changes with the content of the files."""
    hashed = hashlib.sha256()
    for path in sorted(set(paths)):
        hashed.update(f"{path}\0".encode())
        hashed.update(path.read_bytes())
    return hashed.hexdigest()[:16]


def imported(paths: Iterable[Path]) -> set[Path]:
    """Return the project's modules that Python files import, and what these import in turn."""
    found: set[Path] = set()
    waiting = [path for path in paths if path.suffix == ".py"]
    while waiting:
        for path in _imports(waiting.pop()):
            if path is not None and path not in found:
                found.add(path)
                waiting.append(path)
    return found


def _imports(path: Path) -> Iterator[Path | None]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        match node:
            case ast.Import(names):
                yield from (_source(alias.name) for alias in names)
            case ast.ImportFrom(str(module), names, 0):
                yield _source(module)
                yield from (_source(f"{module}.{alias.name}") for alias in names)
            case ast.ImportFrom(module, names, level):
                words = module.split(".") if module else []
                base = path.absolute().parents[:level][-1].joinpath(*words)
                yield _file(base)
                yield from (_file(base / alias.name) for alias in names)
            case _:
                pass


def _source(name: str) -> Path | None:
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    path = Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None
    return path if path is not None and _is_of_the_project(path) else None


def _file(module: Path) -> Path | None:
    """Return the file of a module by its place: its name is not known, as a revision has none."""
    for path in (module / "__init__.py", module.with_name(f"{module.name}.py")):
        if path.is_file() and _is_of_the_project(path):
            return path
    return None


def loaded() -> set[Path]:
    """Return the project's modules that are loaded."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return {path for file in files if file and _is_of_the_project(path := Path(file))}


def _is_of_the_project(path: Path) -> bool:
    outside = {"site-packages", "dist-packages"} & set(path.parts)
    return path.suffix == ".py" and not outside and not path.is_relative_to(sys.base_prefix)
