"""The digest of a project's tables, by which a template is found again."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import Column, Connection, MetaData, Table, Text, event, text

from stillroom.testing.databases.sources import imported
from stillroom.testing.databases.tables import Tables


@pytest.fixture
def role() -> Table:
    """Give a table in a metadata of its own."""
    return Table("role", MetaData(), Column("name", Text, primary_key=True))


def digest_of(role: Table, statement: Any, parameters: Any = None) -> str:
    """Return the digest where a listener sends a statement after the table was created."""

    def fill(_: object, connection: Connection, **__: object) -> None:
        connection.execute(statement, parameters)

    event.listen(role, "after_create", fill)
    module = ModuleType("models_of_a_test")
    module.metadata = role.metadata  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        digest = Tables(f"{module.__name__}:metadata").digest()
    event.remove(role, "after_create", fill)
    return digest


def test_a_value_in_a_statement_is_in_the_digest(role: Table) -> None:
    """What a listener writes is in the template, so another value needs another one."""
    admin, root, again = (
        digest_of(role, role.insert().values(name=name)) for name in ("admin", "root", "admin")
    )

    assert admin == again != root


def test_a_value_beside_a_statement_is_in_the_digest(role: Table) -> None:
    """It makes no difference how the value is given."""
    statement = text("INSERT INTO role VALUES (:name)")
    admin, root, again = (
        digest_of(role, statement, {"name": name}) for name in ("admin", "root", "admin")
    )

    assert admin == again != root


def test_the_modules_are_in_the_digest_where_rows_are_written(
    role: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default of a column may be a function, and only its source says what it returns."""
    module = ModuleType("defaults_of_a_test")
    module.__file__ = str(tmp_path / "defaults.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def digests(source: str) -> tuple[str, str]:
        (tmp_path / "defaults.py").write_text(source)
        return digest_of(role, role.insert()), digest_of(role, text("SELECT 1"))

    first, second = digests("NAME = 'admin'"), digests("NAME = 'root'")

    assert first[0] != second[0]
    assert first[1] == second[1]


def test_relative_imports_are_followed(tmp_path: Path) -> None:
    """From each file they begin at its own folder, whatever the package is called."""
    sources = {
        "first.py": "from . import second\nfrom .. import outer\nfrom ..part.deep import name",
        "second.py": "",
        "unrelated.py": "",
        "../outer.py": "",
        "../part/deep.py": "from .beside import value",
        "../part/beside.py": "from . import anything",
        "../part/__init__.py": "",
    }
    for name, source in sources.items():
        path = tmp_path / "app" / "versions" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)

    found = imported([tmp_path / "app" / "versions" / "first.py"])

    names = ["outer.py", "part/__init__.py", "part/beside.py", "part/deep.py", "versions/second.py"]
    assert sorted(str(path.relative_to(tmp_path / "app")) for path in found) == names
