"""One test of the application, with a database."""

from accounts.application import app
from fastapi.testclient import TestClient


def test_users() -> None:
    """There are none yet."""
    assert TestClient(app).get("/api/user/get-users").json() == []
