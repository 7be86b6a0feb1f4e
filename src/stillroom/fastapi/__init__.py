"""Stillroom in a FastAPI application: the unit of work of a request, and errors as answers."""

from stillroom.fastapi.answers import ProblemDetails
from stillroom.fastapi.application import install, lifespan
from stillroom.fastapi.health import health
from stillroom.fastapi.idempotency import Idempotency
from stillroom.fastapi.insert import InsertResponse
from stillroom.fastapi.links import link_header
from stillroom.fastapi.route import SessionDependency, UnitOfWorkRoute
from stillroom.fastapi.stream import JSONArrayResponse, JSONLinesResponse
from stillroom.fastapi.unit import unit_of_work

__all__ = [
    "Idempotency",
    "InsertResponse",
    "JSONArrayResponse",
    "JSONLinesResponse",
    "ProblemDetails",
    "SessionDependency",
    "UnitOfWorkRoute",
    "health",
    "install",
    "lifespan",
    "link_header",
    "unit_of_work",
]
