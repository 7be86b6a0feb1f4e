"""The OpenAPI document."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}

STATUSES = {
    ("get", "/api/user/get-user"): {"404", "422", "500", "503", "504"},
    ("get", "/api/user/get-users"): {"500", "503", "504"},
    ("post", "/api/user/create-user"): {"400", "409", "413", "422", "500", "503", "504"},
}


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    """Read the document as a client does."""
    document: dict[str, Any] = client.get("/openapi.json").json()
    return document


def test_each_operation_describes_its_problems(document: dict[str, Any]) -> None:
    """Every status that is an error has the schema of a problem, and no other schema."""
    described = {
        (method, path): {
            status: response["content"]
            for status, response in operation["responses"].items()
            if int(status) >= 400
        }
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert {key: set(problems) for key, problems in described.items()} == STATUSES
    assert all(
        content == PROBLEM for problems in described.values() for content in problems.values()
    )
    members = document["components"]["schemas"]["ProblemDetails"]
    assert {"type", "title", "status", "detail"} <= set(members["properties"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_the_document_says_what_good_answers_look_like(document: dict[str, Any]) -> None:
    """A user has a string for an id, an e-mail address and a name; the list has users."""
    paths = document["paths"]

    def answer(method: str, path: str) -> Any:
        return paths[path][method]["responses"]["200"]["content"]["application/json"]["schema"]

    user = {"$ref": "#/components/schemas/UserSchema"}
    assert answer("get", "/api/user/get-user") == user
    assert answer("post", "/api/user/create-user") == user
    assert answer("get", "/api/user/get-users")["items"] == user
    schema = document["components"]["schemas"]["UserSchema"]
    assert set(schema["required"]) == {"id", "email", "full_name"}
    assert {member["type"] for member in schema["properties"].values()} == {"string"}
