"""One test of the application, without a database."""

from accounts.application import app
from fastapi.testclient import TestClient


def test_health() -> None:
    """It is well."""
    assert TestClient(app).get("/health").json() == "well"
