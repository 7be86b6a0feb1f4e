"""A user who is created twice with one Idempotency-Key is one user."""

from fastapi.testclient import TestClient

ADA = {"email": "ada@example.com", "full_name": "Ada Lovelace"}
KEY = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}


def test_a_request_that_is_sent_again_gets_the_first_answer(client: TestClient) -> None:
    """The second is no conflict: it has the answer of the first, and there is one user."""
    first, second = (client.post("/api/user/create-user", json=ADA, headers=KEY) for _ in range(2))

    assert (first.status_code, second.status_code) == (200, 200)
    assert second.content == first.content
    assert second.headers["idempotency-replayed"] == "true"
    assert client.get("/api/user/get-users").json() == [first.json()]


def test_a_key_belongs_to_one_request(client: TestClient) -> None:
    """With another body it is a 422, and without a key the same user is a conflict."""
    client.post("/api/user/create-user", json=ADA, headers=KEY)
    other = client.post("/api/user/create-user", json={**ADA, "full_name": "A. L."}, headers=KEY)
    same = client.post("/api/user/create-user", json=ADA)

    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert same.status_code == 409


def test_the_document_has_the_header(client: TestClient) -> None:
    """It stands where a request writes, and nowhere else; the docs send none of their own."""
    paths = client.get("/openapi.json").json()["paths"]
    (header,) = paths["/api/user/create-user"]["post"]["parameters"]

    assert (header["name"], header["in"], header["required"]) == (
        "Idempotency-Key",
        "header",
        False,
    )
    assert "example" not in header
    assert "parameters" not in paths["/api/user/get-users"]["get"]
