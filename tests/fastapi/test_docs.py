"""The documentation from the files of a package."""

import sys
from importlib.abc import MetaPathFinder

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from stillroom.errors import ConfigurationError
from stillroom.fastapi.docs import serve_docs


class FindNothing(MetaPathFinder):
    """Find no module, as if none were installed."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Find nothing."""


def make_app(**options: str) -> FastAPI:
    """Make an application without FastAPI's own pages."""
    return FastAPI(title="Pantry", docs_url=None, redoc_url=None, **options)  # type: ignore[arg-type]


def test_the_page_is_fastapis_with_files_of_this_server() -> None:
    """Title, OpenAPI URL, sign-in page and the prefix of a proxy are as FastAPI has them."""
    app = make_app(openapi_url="/schema.json")
    serve_docs(app, "/manual")
    client = TestClient(app, root_path="/behind/a/proxy")

    page = client.get("/manual")
    assert "<title>Pantry - Swagger UI</title>" in page.text
    for path in ("schema.json", "manual/files/swagger-ui-bundle.js", "docs/oauth2-redirect"):
        assert f"'/behind/a/proxy/{path}'" in page.text or f'"/behind/a/proxy/{path}"' in page.text
    assert client.get("/docs/oauth2-redirect").status_code == 200


def test_a_browser_that_has_the_files_is_not_sent_them_again() -> None:
    """The files have an ETag; https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2."""
    app = make_app()
    serve_docs(app)
    client = TestClient(app)

    first = client.get("/docs/files/swagger-ui.css")
    again = client.get(
        "/docs/files/swagger-ui.css", headers={"If-None-Match": first.headers["etag"]}
    )
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")


def test_pages_that_load_from_a_cdn_are_refused() -> None:
    """FastAPI's own pages and these are not served side by side."""
    with pytest.raises(ConfigurationError, match="docs_url=None"):
        serve_docs(FastAPI(redoc_url=None))
    with pytest.raises(ConfigurationError, match="redoc_url=None"):
        serve_docs(FastAPI(docs_url=None))


def test_without_a_document_there_is_no_page() -> None:
    """`openapi_url=None` switches the documentation off, as in FastAPI."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    serve_docs(app)
    assert TestClient(app).get("/docs").status_code == 404


def test_files_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setattr(sys, "meta_path", [FindNothing()])
    with pytest.raises(ConfigurationError, match=r"pip install 'stillroom\[docs\]'"):
        serve_docs(make_app())


def test_the_package_of_the_files_is_not_imported() -> None:
    """Its code would make pages of its own."""
    serve_docs(make_app())
    assert "fastapi_swagger" not in sys.modules
