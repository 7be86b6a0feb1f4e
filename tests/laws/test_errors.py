"""Law 5: every database error has one meaning in HTTP, on both drivers."""

import json
from typing import Any

import httpx2
import pytest

from tests.laws.conftest import Service

RAISE = "DO $$ BEGIN RAISE EXCEPTION 'canary' USING ERRCODE = '{}'; END $$"


@pytest.mark.parametrize(
    ("values", "status", "code", "fields"),
    [
        ({"name": None}, 422, "missing_value", ["name"]),
        ({"name": "canary" * 10}, 422, "too_long", []),
        ({"name": "canary", "size": 1000}, 422, "rule_violated", []),
        ({"name": "canary", "size": 2**31}, 422, None, []),
        ({"name": "canary", "price": 1000}, 422, "out_of_range", []),
        ({"name": "canary", "size": "canary"}, 422, "bad_value", []),
        ({"name": "canary\0"}, 422, "bad_value", []),
        ({"name": "canary\ud800"}, 422, "bad_value", []),
        ({"name": "canary", "parent_id": 987654}, 409, "reference_conflict", ["parent_id"]),
        ({"name": "canary taken"}, 409, "already_exists", ["name"]),
    ],
)
def test_a_value_that_the_database_refuses_is_a_4xx(
    service: Service, values: dict[str, Any], status: int, code: str | None, fields: list[str]
) -> None:
    """Each broken rule is a 409 or 422 that names the field where PostgreSQL names it."""
    service.client.post("/insert", json={"name": "canary taken"})

    response = service.client.post("/insert", content=json.dumps(values), headers=JSON)

    problem = response.json()
    assert (response.status_code, problem["status"]) == (status, status), problem
    assert code in {None, problem["code"]}
    assert [error["field"] for error in problem.get("errors", [])] == fields
    is_problem(response)


def test_deleting_what_is_in_use_is_a_409(service: Service) -> None:
    """A row that others refer to cannot go: 409."""
    service.client.post("/insert", json={"id": 5000, "name": "parent"})
    service.client.post("/insert", json={"name": "child", "parent_id": 5000})

    response = service.client.post("/statement", content="DELETE FROM items WHERE id = 5000")

    assert response.status_code == 409
    is_problem(response)


def test_an_exclusion_constraint_is_a_409(service: Service) -> None:
    """What may not overlap and does is a 409."""
    service.database.execute(
        "CREATE TABLE IF NOT EXISTS stays (r int4range, CONSTRAINT ex_stays_r "
        "EXCLUDE USING gist (r WITH &&))"
    )
    insert = "INSERT INTO stays VALUES ('[1,5)')"
    service.client.post("/statement", content=insert)

    response = service.client.post("/statement", content=insert)

    assert (response.status_code, response.json()["code"]) == (409, "overlap")
    service.database.execute("DROP TABLE stays")


@pytest.mark.parametrize(
    ("sqlstate", "status"),
    [
        ("40001", 503),
        ("40P01", 503),
        ("55P03", 503),
        ("53300", 503),
        ("53200", 503),
        ("57P01", 503),
        ("57P02", 503),
        ("57P03", 503),
        ("08006", 503),
        ("57014", 504),
        ("42P01", 500),
        ("42703", 500),
        ("42501", 500),
        ("XX000", 500),
        ("P0001", 500),
        ("25P03", 503),
        ("25P04", 504),
        ("22012", 500),
        ("54001", 500),
        ("22P02", 422),
        ("23001", 409),
        ("54000", 422),
    ],
)
def test_each_sqlstate_has_its_status(service: Service, sqlstate: str, status: int) -> None:
    """What passes by itself is 503 with Retry-After; what took too long 504; our mistake 500."""
    response = service.client.post("/statement", content=RAISE.format(sqlstate))

    assert response.status_code == status
    assert (response.headers.get("retry-after") == "1") == (status == 503)
    is_problem(response)


def test_a_statement_over_its_time_is_a_504(service: Service) -> None:
    """PostgreSQL itself ends a statement at its deadline."""
    response = service.client.get("/sleep", params={"seconds": 30})

    assert (response.status_code, response.json()["code"]) == (504, "statement_timeout")


@pytest.mark.parametrize(
    "statement",
    ["SELECT * FROM canary", "SELECT canary FROM items", "SELECT canary()", "canary"],
)
def test_a_missing_table_or_column_is_a_500_that_says_nothing(
    service: Service, statement: str
) -> None:
    """A statement that cannot be right is our mistake, and tells the client no SQL."""
    response = service.client.post("/statement", content=statement)

    assert response.status_code == 500
    is_problem(response)


def test_a_connection_that_is_cut_is_a_503_and_the_next_request_is_fine(service: Service) -> None:
    """A lost connection is 503 with Retry-After, and costs one request alone."""
    cut = "SELECT pg_terminate_backend(pg_backend_pid())"

    response = service.client.post("/statement", content=cut)

    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    is_problem(response)
    assert service.client.post("/statement", content="SELECT 1").status_code == 200


def test_problems_of_fastapi_have_the_same_form(service: Service) -> None:
    """404, 405, 422 and 400 of FastAPI itself are problems too, and echo nothing."""
    client = service.client
    answers = {
        404: client.get("/canary"),
        405: client.delete("/sleep"),
        422: client.post("/raised", params={"name": "canary", "status": "canary"}),
        400: client.post("/insert", content="[" * 100_000, headers=JSON),
    }

    for status, response in answers.items():
        assert response.status_code == status, response.text
        is_problem(response)
    assert answers[405].headers["allow"] == "GET"
    assert answers[422].json()["errors"][0]["field"] == "query.status"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"word": "canary"}, "body.word"),
        ({"canary": 1}, "body"),
        ({"numbers": {"canary canary": "x"}}, "body.numbers.*"),
        ({"numbers": {"\ud800": "x"}}, "body.numbers.*"),
    ],
)
def test_a_refused_value_is_not_quoted(
    service: Service, body: dict[str, object], field: str
) -> None:
    """Neither a message of a validator nor a key that the client made up comes back."""
    response = service.client.post("/picky", content=json.dumps(body), headers=JSON)

    assert response.status_code == 422
    assert [error["field"] for error in response.json()["errors"]] == [field]
    is_problem(response)


@pytest.mark.parametrize(
    "body", ["{", '{"name": NaN', '["\\ud800"]', '"canary"', "1" * 5000, "", "\0", "Infinity"]
)
def test_a_body_that_cannot_be_read_is_a_4xx(service: Service, body: str) -> None:
    """Malformed JSON of any kind is refused without an echo."""
    response = service.client.post("/insert", content=body, headers=JSON)

    assert response.status_code in {400, 422}
    is_problem(response)


def test_the_document_describes_the_problems(service: Service) -> None:
    """The OpenAPI document has the problems of each operation, and nothing of FastAPI's 422."""
    document = service.client.get("/openapi.json").json()

    post = document["paths"]["/raised"]["post"]["responses"]
    assert set(post) == {"200", "400", "409", "422", "500", "503", "504"}
    assert set(document["paths"]["/sleep"]["get"]["responses"]) == {
        "200", "422", "500", "503", "504",
    }  # fmt: skip
    for status in ("400", "409", "422", "500", "503", "504"):
        assert list(post[status]["content"]) == ["application/problem+json"]
    assert "HTTPValidationError" not in str(document)
    assert "ProblemDetails" in document["components"]["schemas"]


JSON = {"content-type": "application/json"}


def is_problem(response: httpx2.Response) -> None:
    """See that it is a problem of RFC 9457, and that it tells no tales."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert {"type", "title", "status", "detail", "code"} <= set(problem)
    assert problem["status"] == response.status_code
    for tale in ("canary", "INSERT", "SELECT", "items_", "Traceback", "sqlalchemy"):
        assert tale not in response.text
