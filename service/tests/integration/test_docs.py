"""The interactive documentation, in a real browser that reaches nothing but the server."""

from contextlib import closing
from pathlib import Path

from tests.integration.browser import Page, browse
from tests.integration.server import Server

OPERATIONS = [
    "GET /api/user/get-user",
    "GET /api/user/get-users",
    "POST /api/user/create-user",
]

SHOWN = """[...document.querySelectorAll(".opblock-summary")].map(summary =>
  [".opblock-summary-method", ".opblock-summary-path"].map(
    part => summary.querySelector(part).textContent.replaceAll("\\u200b", "")).join(" "))"""

SCREENSHOTS = Path(__file__).parents[2] / ".stillroom"
"""Where the pictures are, for a person to look at; git ignores the folder."""

CREATE = "#operations-user-create_user_api_user_create_user_post"
LIST = "#operations-user-get_users_api_user_get_users_get"


def test_the_docs_work_in_a_browser_without_a_network(server: Server, tmp_path: Path) -> None:
    """Every operation is shown and can be tried out, and nothing is asked of any other server."""
    SCREENSHOTS.mkdir(exist_ok=True)
    with browse(tmp_path / "profile") as page:
        page.open(f"{server.address}/docs")
        page.wait_for(f"{SHOWN}.length === {len(OPERATIONS)}")
        assert page.evaluate(SHOWN) == OPERATIONS
        assert page.evaluate("document.title") == "larder - Swagger UI"
        page.screenshot(SCREENSHOTS / "docs.png")

        created = try_out(page, CREATE)  # with the example that the document gives
        listed = try_out(page, LIST)
        page.screenshot(SCREENSHOTS / "try-it-out.png")
        for answer in (created, listed):
            assert "200" in answer
            assert "Ada Lovelace" in answer
        outside = [url for url in page.requests if not url.startswith((server.address, "data:"))]
        assert (outside, page.failures, page.complaints) == ([], [], [])

        page.evaluate("void fetch('https://example.com/').catch(() => null)")
        page.wait_for("true")
        assert "Content Security Policy" in page.complaints[0]  # so it would have been seen


def try_out(page: Page, operation: str) -> str:
    """Send the request of an operation as a person does, and return the answer as it is shown."""
    answer = f"document.querySelector('{operation} .live-responses-table')"
    page.click(f"{operation} .opblock-summary-control")
    page.click(f"{operation} .try-out__btn")
    page.click(f"{operation} .execute")
    page.wait_for(f"{answer} !== null")
    return str(page.evaluate(f"{answer}.innerText"))


def test_the_docs_name_no_other_server(server: Server) -> None:
    """No address of a CDN stands in the page, its policy allows none, its files are served here."""
    with closing(server.connect()) as connection:
        connection.request("GET", "/docs")
        response = connection.getresponse()
        text = response.read().decode()
        assert "https://" not in text
        assert "http://" not in text
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        for name in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"):
            assert f"/docs/files/{name}" in text
            connection.request("GET", f"/docs/files/{name}")
            file = connection.getresponse()
            assert (file.status, len(file.read()) > 100) == (200, True)
