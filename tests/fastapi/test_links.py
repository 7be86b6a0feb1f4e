"""Pages over HTTP: links from one to the next, and an answer for what is no cursor."""

from typing import Annotated

import httpx2
import pytest
from fastapi import Depends, FastAPI, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import URL

from stillroom.fastapi import link_header
from stillroom.json.pages import JSONPages
from stillroom.pages import Neighbours
from tests.fastapi.conftest import Jar, JarSchema, get_db, manager

JARS = JSONPages(select(Jar), JarSchema, order_by=[Jar.name])


@pytest.fixture
async def pages(app: FastAPI) -> None:
    """Add a route with pages, and five jars."""

    @app.get("/pages", response_model=list[JarSchema])
    async def pages(
        request: Request,
        limit: int = 2,
        cursor: str | None = None,
        tag: Annotated[list[str] | None, Query()] = None,
        db: AsyncSession = Depends(get_db),
    ) -> Response:
        page = await JARS.read(db, limit, cursor)
        links = {"Link": link_header(request.url, page)}
        return Response(page.body, media_type="application/json", headers=links)

    async with manager.begin() as session:
        for name in "abcde":
            await Jar.create(session, name=name)


@pytest.mark.usefixtures("pages")
async def test_a_client_follows_the_links_there_and_back(client: httpx2.AsyncClient) -> None:
    """The header names the next page and the previous one; what else was asked for stays."""
    response = await client.get("/pages", params={"limit": 2, "tag": ["ä b", "x&y"]})
    assert response.links.keys() == {"first", "next"}
    seen = [_names(response)]
    while "next" in response.links:
        response = await client.get(response.links["next"]["url"])
        assert response.url.params.get_list("tag") == ["ä b", "x&y"]
        seen.append(_names(response))
    assert seen == ["ab", "cd", "e"]
    assert response.links.keys() == {"first", "prev"}
    response = await client.get(response.links["prev"]["url"])
    assert _names(response) == "cd"
    response = await client.get(response.links["first"]["url"])
    assert _names(response) == "ab"


@pytest.mark.usefixtures("pages")
@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"cursor": "garbage"}, "bad_cursor"),
        ({"cursor": ""}, "bad_cursor"),
        ({"limit": 101}, "bad_limit"),
    ],
)
async def test_what_leads_to_no_page_is_a_422(
    client: httpx2.AsyncClient, params: dict[str, str], code: str
) -> None:
    """It is the client's, who learns so without an echo."""
    response = await client.get("/pages", params=params)

    assert (response.status_code, response.json()["code"]) == (422, code)
    assert "garbage" not in response.text


def test_the_order_of_the_header_is_that_of_the_pages() -> None:
    """A page between two others has three links, of the form of RFC 8288."""
    page = Neighbours(next="N", previous="P")

    assert link_header(URL("https://host:1/jars?b=&cursor=C&a=1#x"), page, parameter="cursor") == (
        '<https://host:1/jars?b=&a=1>; rel="first", '
        '<https://host:1/jars?b=&a=1&cursor=P>; rel="prev", '
        '<https://host:1/jars?b=&a=1&cursor=N>; rel="next"'
    )


def test_the_links_of_a_url_without_a_host_are_relative() -> None:
    """A client resolves them against the URL it used, whatever proxies have made of it."""
    page = Neighbours(next="N", previous=None)

    assert link_header("?cursor=C", page) == '<?>; rel="first", <?cursor=N>; rel="next"'
    assert link_header("/jars", page) == '</jars>; rel="first", </jars?cursor=N>; rel="next"'


@pytest.mark.parametrize("path", ["/a>; rel=evil", '/a"', "/a\r\nX: y", "/ä", "/a b", "/%0D%0A"])
def test_nothing_of_a_path_ends_a_link(path: str) -> None:
    """Whatever the path of the request decodes to, the header is one of ASCII and one line."""
    scope = {"type": "http", "path": path, "headers": [(b"host", b"h")], "query_string": b""}
    header = link_header(URL(scope=scope), Neighbours(next=None, previous=None))

    assert header.isascii()
    assert header.isprintable()
    assert header.count(">") == header.count("<") == 1


def _names(response: httpx2.Response) -> str:
    assert response.status_code == 200, response.text
    return "".join(jar["name"] for jar in response.json())
