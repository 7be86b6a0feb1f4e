"""Problems in the OpenAPI document, in place of FastAPI's own description of a 422."""

from typing import Any

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from stillroom.fastapi.route import UnitOfWorkRoute
from stillroom.fastapi.unit import options_of
from stillroom.problems import MEDIA_TYPE, phrase


def describe_problems(app: FastAPI, *, takes_keys: bool = False) -> None:
    """Describe in each operation the problems that it can answer with.

    With `takes_keys` those that an Idempotency-Key matters to have the header.

    A status that a route declares itself, as in ``responses={404: {"description": ...}}``, keeps
    its description and gets the schema of a problem where it has no content of its own.
    """
    generate = app.openapi
    described: dict[str, Any] | None = None

    def openapi() -> dict[str, Any]:
        nonlocal described
        document = generate()
        if document is not described:  # it is a new one after a new route
            if takes_keys:
                _describe_keys(app, document)
            _describe(document)
            described = document
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _describe_keys(app: FastAPI, document: dict[str, Any]) -> None:
    for context in iter_route_contexts(app.routes):
        route: Any = context.original_route
        if not isinstance(route, UnitOfWorkRoute):
            continue
        operations = document["paths"].get(context.path_format, {})
        for method in filter(route.takes_key, context.methods or ()):
            if (operation := operations.get(method.lower())) is not None:
                header = {**_KEY, "required": options_of(route.endpoint).requires_key}
                operation.setdefault("parameters", []).append(header)
                operation["responses"].setdefault("400", {"description": phrase(400)})


def _describe(document: dict[str, Any]) -> None:
    from stillroom.fastapi.answers import ProblemDetails  # noqa: PLC0415

    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for path in document.get("paths", {}).values():
        for method, operation in path.items():
            if method in _METHODS:
                _describe_operation(method, operation)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    template = "#/components/schemas/{model}"
    own = ProblemDetails.model_json_schema(mode="serialization", ref_template=template)
    schemas.update(own.pop("$defs", {}))
    schemas["ProblemDetails"] = own


def _describe_operation(method: str, operation: dict[str, Any]) -> None:
    responses: dict[str, Any] = operation["responses"]
    if _is_of_fastapi(responses.get("422", {})):
        del responses["422"]
    statuses = {500, 503, 504}
    if operation.get("parameters") or operation.get("requestBody"):
        statuses.add(422)
    if operation.get("requestBody"):
        statuses |= {400, 413}
    if method not in {"get", "head", "options"}:
        statuses.add(409)
    for status in sorted(statuses):
        responses.setdefault(str(status), {"description": phrase(status)})
    for key, response in responses.items():
        if key.isdigit() and int(key) >= 400:
            response.setdefault("content", {MEDIA_TYPE: {"schema": {"$ref": _SCHEMA}}})
    operation["responses"] = dict(sorted(responses.items()))


def _is_of_fastapi(response: dict[str, Any]) -> bool:
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    return str(schema.get("$ref")).endswith("/HTTPValidationError")


_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Names the request, so that it may be sent again and is done once.",
    # No example: the documentation would send it, and twice the same key is once the same request.
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_SCHEMA = "#/components/schemas/ProblemDetails"
