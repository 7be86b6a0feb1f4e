"""The route of a request, which may be shown where its path may not."""

from collections.abc import Mapping
from typing import Any


def route_of(scope: Mapping[str, Any]) -> str | None:
    """Return the path of the route that a request has matched, as declared: ``/users/{id}``.

    It holds nothing of the request, so it may be logged. The prefixes of the routers that include
    it are part of it. None where there is no route, or the framework does not say which.
    """
    # FastAPI's route knows its own path alone; the whole one belongs to where it was included.
    included = scope.get("fastapi", {}).get("effective_route_context")
    path: str | None = getattr(included or scope.get("route"), "path_format", None)
    return path
