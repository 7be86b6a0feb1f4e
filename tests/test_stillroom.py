"""The package itself."""

import subprocess
import sys

import pytest

import stillroom


def test_importing_the_package_loads_nothing_else() -> None:
    """`import stillroom` costs nothing: no SQLAlchemy, no FastAPI, no driver."""
    program = (
        "import sys, stillroom; "
        "print(*(m for m in sys.modules if m.split('.')[0] in "
        "{'sqlalchemy', 'fastapi', 'starlette', 'alembic', 'asyncpg', 'psycopg', 'pydantic'}))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout

    assert output.strip() == ""


@pytest.mark.parametrize("name", stillroom.__all__)
def test_each_public_name_is_there_and_documented(name: str) -> None:
    """What `__all__` lists can be imported, and has a docstring."""
    assert getattr(stillroom, name).__doc__
    assert name in dir(stillroom)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """A misspelt name fails as in any module."""
    with pytest.raises(AttributeError, match="no attribute 'sesion'"):
        _ = stillroom.sesion
