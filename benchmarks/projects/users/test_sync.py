"""Many tests through Starlette's TestClient."""

import os

import pytest
from fastapi.testclient import TestClient


@pytest.mark.parametrize("number", range(int(os.environ.get("USERS_TESTS", "3"))))
def test_user(number: int, sync_client: TestClient) -> None:
    """A user that was created is found, and is the only one."""
    body = {"email": "ada@example.com", "full_name": f"Ada {number}"}
    created = sync_client.post("/api/user/create-user", json=body).json()
    assert sync_client.get("/api/user/get-user", params={"id": created["id"]}).json() == created
    assert sync_client.get("/api/user/get-users").json() == [created]
