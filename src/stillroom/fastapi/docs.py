"""The interactive documentation, from the files of a package: no network, no CDN."""

import re
from base64 import b64encode
from hashlib import sha256
from importlib.util import find_spec

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html, get_swagger_ui_oauth2_redirect_html
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from stillroom.errors import ConfigurationError


def serve_docs(app: FastAPI, path: str = "/docs") -> None:
    """Serve Swagger UI at `path` and its files below; a browser asks no other server for anything.

    It takes the place of FastAPI's own pages, which load from a CDN, so the application is made
    with ``FastAPI(docs_url=None, redoc_url=None)``; what FastAPI takes for its page holds here too.
    A Content-Security-Policy keeps the page to this server: "Try it out" cannot call another one.
    Raises ConfigurationError where the files are not installed, or FastAPI serves its own pages.
    """
    if app.docs_url or app.redoc_url:
        msg = (
            f"FastAPI serves documentation at {app.docs_url or app.redoc_url} that loads from a "
            "CDN. Switch it off: FastAPI(docs_url=None, redoc_url=None)"
        )
        raise ConfigurationError(msg)
    if app.openapi_url is None:
        return
    _add_page(app, path, app.openapi_url)
    if app.swagger_ui_oauth2_redirect_url:
        _add_redirect_page(app, app.swagger_ui_oauth2_redirect_url)
    app.mount(path + _FILES, _files(), name="docs_files")


def _add_page(app: FastAPI, path: str, openapi_url: str) -> None:
    async def page(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "").rstrip("/")
        redirect_url = app.swagger_ui_oauth2_redirect_url
        html = get_swagger_ui_html(
            openapi_url=root + openapi_url,
            title=f"{app.title} - Swagger UI",
            swagger_js_url=f"{root}{path}{_FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{root}{path}{_FILES}/swagger-ui.css",
            swagger_favicon_url=f"{root}{path}{_FILES}/favicon-32x32.png",
            oauth2_redirect_url=redirect_url and root + redirect_url,
            init_oauth=app.swagger_ui_init_oauth,
            swagger_ui_parameters=app.swagger_ui_parameters,
        )
        return _keep_to_this_server(html)

    app.add_route(path, page, include_in_schema=False)


def _add_redirect_page(app: FastAPI, path: str) -> None:
    async def redirect(_request: Request) -> HTMLResponse:
        return _keep_to_this_server(get_swagger_ui_oauth2_redirect_html())

    app.add_route(path, redirect, include_in_schema=False)


def _files() -> StaticFiles:
    # A source of files only: the package is found, not imported, for its code loads FastAPI's.
    if find_spec("fastapi_swagger") is None:
        msg = "The files of the documentation are not installed: pip install 'stillroom[docs]'"
        raise ConfigurationError(msg)
    return StaticFiles(packages=[("fastapi_swagger", "resources")])


def _keep_to_this_server(page: HTMLResponse) -> HTMLResponse:
    """Allow the page its own inline script, by its hash, and nothing from elsewhere.

    https://www.w3.org/TR/CSP3/#external-hash
    """
    scripts = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
    hashes = " ".join(f"'sha256-{b64encode(sha256(s).digest()).decode()}'" for s in scripts)
    page.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src 'self' {hashes}; style-src 'self'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return page


_FILES = "/files"
