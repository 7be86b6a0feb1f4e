"""The laws, on each of the patterns: what fails here is what the page says of it."""

import patterns
import pytest
from fastapi import FastAPI

from stillroom.testing.laws import Request, ServiceLaws


class Pattern(ServiceLaws):
    """Ask all of them the same."""

    def write(self, number: int) -> Request:
        return Request("POST", f"/users/user{number}@example.com")

    def read(self) -> Request:
        return Request("GET", "/users")

    def refused(self, number: int) -> Request:
        return Request("POST", f"/refused/user{number}@example.com")


class TestTeardown(Pattern):
    @pytest.fixture
    def app(self) -> FastAPI:
        return patterns.teardown()


class TestFunctionScope(Pattern):
    @pytest.fixture
    def app(self) -> FastAPI:
        return patterns.function_scope()


class TestInTheView(Pattern):
    @pytest.fixture
    def app(self) -> FastAPI:
        return patterns.in_the_view()


class TestInTheModel(Pattern):
    @pytest.fixture
    def app(self) -> FastAPI:
        return patterns.in_the_model()


class TestMiddleware(Pattern):
    @pytest.fixture
    def app(self) -> FastAPI:
        return patterns.middleware()


class TestStillroom(Pattern):
    @pytest.fixture
    def app(self) -> FastAPI:
        return patterns.stillroom()
