"""Whatever a client sends, a real server answers with a problem, and the connection lives on."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import pytest

from tests.integration.server import Server

CREATE, GET = "/api/user/create-user", "/api/user/get-user"
CANARY = "canary5f0e"
"""What a bad request says, and no answer may say after it."""

TEN_MEGABYTES = 10_000_000


@dataclass(frozen=True)
class Bad:
    """A bad request, and the status that it deserves."""

    status: int
    path: str = CREATE
    body: bytes | Iterator[bytes] | None = None
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})


def body(status: int, raw: bytes | str) -> Bad:
    """Send a body to create-user as it is."""
    return Bad(status, body=raw.encode() if isinstance(raw, str) else raw)


def email(raw: str, status: int = 422) -> Bad:
    """Send an e-mail address, written in JSON, with a good name."""
    return body(status, f'{{"email": {raw}, "full_name": "{CANARY}"}}')


def full_name(raw: str, status: int = 422) -> Bad:
    """Send a name, written in JSON, with a good e-mail address."""
    return body(status, f'{{"email": "{CANARY}@example.com", "full_name": {raw}}}')


def id(query: str, status: int = 404) -> Bad:
    """Ask for a user by a query as it is."""
    return Bad(status, f"{GET}?{query}", method="GET", headers={})


BAD = {
    "email-missing": body(422, f'{{"full_name": "{CANARY}"}}'),
    "email-null": email("null"),
    "email-blank": email('"  "'),
    "email-empty": email('""'),
    "email-without-at": email(f'"{CANARY}"'),
    "email-without-domain": email(f'"{CANARY}@"'),
    "email-with-two-at": email(f'"{CANARY}@{CANARY}@example.com"'),
    "email-with-line-break": email(f'"a@example.com\\nBcc: {CANARY}@example.com"'),
    "email-too-long": email(f'"{CANARY * 30}@example.com"'),
    "email-number": email("5"),
    "email-list": email(f'["{CANARY}@example.com"]'),
    "email-object": email(f'{{"{CANARY}": "{CANARY}"}}'),
    "email-nul": email(f'"{CANARY}\\u0000@example.com"'),
    "email-surrogate": email(f'"{CANARY}\\ud800@example.com"'),
    "name-missing": body(422, f'{{"email": "{CANARY}@example.com"}}'),
    "name-null": full_name("null"),
    "name-empty": full_name('""'),
    "name-blank": full_name('" \\t\\n\\u00a0\\u3000"'),
    "name-invisible": full_name('"\\u200b\\u2060\\ufeff\\u00ad"'),
    "name-too-long": full_name(f'"{CANARY}{"x" * 200}"'),
    "name-number": full_name("5"),
    "name-true": full_name("true"),
    "name-list": full_name(f'["{CANARY}"]'),
    "name-nul": full_name(f'"{CANARY}\\u0000"'),
    "name-escape": full_name(f'"{CANARY}\\u001b[31m"'),
    "name-c1-control": full_name(f'"{CANARY}\\u009b31m"'),
    "name-line-break": full_name(f'"{CANARY}\\n{CANARY}"'),
    "name-high-surrogate": full_name(f'"{CANARY}\\ud800"'),
    "name-low-surrogate": full_name(f'"\\udc00{CANARY}"'),
    "name-nan": full_name("NaN"),
    "name-infinity": full_name("Infinity"),
    "name-minus-infinity": full_name("-Infinity"),
    "name-huge-float": full_name("1e999"),
    "name-5000-digits": full_name("9" * 5000, 400),
    "field-extra": body(
        422, f'{{"email": "a@example.com", "full_name": "A", "{CANARY}": "{CANARY}"}}'
    ),
    "field-id": body(422, f'{{"id": "{CANARY}", "email": "a@example.com", "full_name": "A"}}'),
    "body-none": Bad(422),
    "body-empty": body(422, b""),
    "body-null": body(422, "null"),
    "body-list": body(422, f'["{CANARY}"]'),
    "body-string": body(422, f'"{CANARY}"'),
    "body-nan": body(422, "NaN"),
    "body-malformed": body(422, f'{{"email": "{CANARY}'),
    "body-single-quotes": body(422, f"{{'email': '{CANARY}'}}"),
    "body-two-values": body(422, f'{{"full_name": "{CANARY}"}} {{"email": "{CANARY}"}}'),
    "body-not-utf-8": body(400, b'{"email": "\xff\xfe", "full_name": "' + CANARY.encode() + b'"}'),
    "body-nul-bytes": body(400, b"\0" * 100 + CANARY.encode()),
    "body-deep-list": body(413, "[" * 100_000),
    "body-deep-list-in-limit": body(400, "[" * 30_000 + "]" * 30_000),
    "body-deep-object-in-limit": body(400, '{"a":' * 12_000),
    "name-deep-list-in-limit": full_name("[" * 30_000 + "]" * 30_000, 400),
    "body-10-megabytes": full_name(f'"{CANARY}{"x" * TEN_MEGABYTES}"', 413),
    "id-no-id": id(f"id={CANARY}"),
    "id-unknown": id("id=00000000-0000-7000-8000-000000000000"),
    "id-number": id("id=1"),
    "id-empty": id("id="),
    "id-missing": id(f"{CANARY}=1", 422),
    "id-nul": id(f"id={CANARY}%00"),
    "id-surrogate": id(f"id={CANARY}%ED%A0%80"),
    "id-no-utf-8": id(f"id={CANARY}%ff%fe"),
    "id-bad-percent": id(f"id={CANARY}%zz%"),
    "id-10-kilobytes": id(f"id={CANARY * 1000}"),
    "id-digits-of-another-script": id("id=" + "%D9%A1" * 32),
    "id-braces": id("id=%7B00000000-0000-7000-8000-000000000000%7D"),
    "id-twice": id(f"id={CANARY}1&id={CANARY}2"),
    "route-unknown": Bad(404, f"/api/user/{CANARY}", method="GET", headers={}),
    "route-outside": Bad(404, f"/{CANARY}%00%ff", method="GET", headers={}),
    "method-get": Bad(405, f"{CREATE}?a={CANARY}", method="GET", headers={}),
    "method-post": Bad(405, f"{GET}?id={CANARY}"),
    "method-delete": Bad(405, f"{GET}?id={CANARY}", method="DELETE"),
    "method-of-webdav": Bad(405, f"{GET}?id={CANARY}", method="PROPFIND"),
    "type-form": Bad(
        422,
        body=f"email=a%40example.com&full_name={CANARY}".encode(),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    ),
    "type-text": Bad(
        422, body=json.dumps({"email": CANARY}).encode(), headers={"Content-Type": "text/plain"}
    ),
    "type-none": Bad(422, body=json.dumps({"email": CANARY}).encode(), headers={}),
    "type-nonsense": Bad(422, body=CANARY.encode(), headers={"Content-Type": ";; /"}),
}


@pytest.fixture(scope="module")
def problems(running_server: Server) -> dict[tuple[str, str], set[str]]:
    """Give the statuses that the OpenAPI document describes as problems, by method and path."""
    with closing(running_server.connect()) as connection:
        connection.request("GET", "/openapi.json")
        document = json.load(connection.getresponse())
    return {
        (method.upper(), path): {
            status
            for status, response in operation["responses"].items()
            if "application/problem+json" in response.get("content", {})
        }
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_bad_input_is_answered_with_a_problem_and_the_connection_lives_on(
    server: Server, problems: dict[tuple[str, str], set[str]], bad: Bad
) -> None:
    """4xx as RFC 9457 describes it, without an echo, as documented; the next request is served."""
    with closing(server.connect()) as connection:
        connection.request(bad.method, bad.path, bad.body, bad.headers)
        check(connection.getresponse(), bad.status)
        assert_alive(connection)
    described = problems.get((bad.method, bad.path.partition("?")[0]))
    assert described is None or str(bad.status) in described


def test_a_body_of_unknown_length_is_cut_at_the_limit(server: Server) -> None:
    """10 MB in chunks, without a Content-Length, are refused like any other 10 MB."""
    chunks = iter([f'{{"email": "{CANARY}'.encode(), *([b"x" * 100_000] * 100), b'"}'])
    with closing(server.connect()) as connection:
        connection.request(
            "POST", CREATE, chunks, {"Content-Type": "application/json"}, encode_chunked=False
        )
        check(connection.getresponse(), 413)
        assert_alive(connection)


def test_a_method_that_a_route_has_not_is_told_which_it_has(server: Server) -> None:
    """405 comes with Allow; https://www.rfc-editor.org/rfc/rfc9110#section-15.5.6."""
    with closing(server.connect()) as connection:
        connection.request("PUT", CREATE)
        response = connection.getresponse()
        check(response, 405)
        assert response.headers["Allow"] == "POST"


def test_all_bad_input_in_turn_is_answered_on_one_connection(server: Server) -> None:
    """No answer spoils the connection for the one after it."""
    with closing(server.connect()) as connection:
        for bad in BAD.values():
            connection.request(bad.method, bad.path, bad.body, bad.headers)
            check(connection.getresponse(), bad.status)
        assert_alive(connection)


def check(response: HTTPResponse, status: int) -> None:
    """Check the answer to a bad request."""
    text = response.read().decode("ascii")
    assert response.status == status, text
    assert response.headers["Content-Type"] == "application/problem+json"
    assert CANARY not in text
    assert CANARY not in str(response.headers)
    problem: dict[str, Any] = json.loads(text)
    assert problem["status"] == status
    assert {type(problem[member]) for member in ("type", "title", "detail", "code")} == {str}
    assert not {"input", "ctx", "url"} & {
        key for error in problem.get("errors", []) for key in error
    }


def assert_alive(connection: HTTPConnection) -> None:
    """Ask for the users on the same connection: there is none."""
    connection.request("GET", "/api/user/get-users")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"[]")
