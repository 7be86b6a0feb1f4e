"""The tests of test_sync.py through an AsyncClient."""

import os

import pytest
from httpx2 import AsyncClient


@pytest.mark.parametrize("number", range(int(os.environ.get("USERS_TESTS", "3"))))
async def test_user(number: int, httpx_client: AsyncClient) -> None:
    """A user that was created is found, and is the only one."""
    body = {"email": "ada@example.com", "full_name": f"Ada {number}"}
    created = (await httpx_client.post("/api/user/create-user", json=body)).json()
    found = await httpx_client.get("/api/user/get-user", params={"id": created["id"]})
    assert found.json() == created
    assert (await httpx_client.get("/api/user/get-users")).json() == [created]
