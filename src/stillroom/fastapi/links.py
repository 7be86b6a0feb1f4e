"""The Link header of a page: where a client finds the pages beside it."""

from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from starlette.datastructures import URL

from stillroom.pages import Neighbours


def link_header(url: URL | str, page: Neighbours, *, parameter: str = "cursor") -> str:
    """Return the value of a Link header for a page that was asked for by this URL.

    ``response.headers["Link"] = link_header(request.url, page)`` names the first page, and the next
    and the previous one where they are. Other parameters of the query stay as they are. A URL
    without a host, as ``"?" + request.url.query``, gives links that a client resolves against the
    URL it used, whatever proxies lie between. https://www.rfc-editor.org/rfc/rfc8288#section-3
    """
    cursors = {"first": None, "prev": page.previous, "next": page.next}
    return ", ".join(
        f'<{_with(str(url), parameter, cursor)}>; rel="{relation}"'
        for relation, cursor in cursors.items()
        if cursor is not None or relation == "first"
    )


def _with(url: str, parameter: str, cursor: str | None) -> str:
    parts = urlsplit(url)
    query = [it for it in parse_qsl(parts.query, keep_blank_values=True) if it[0] != parameter]
    if cursor is not None:
        query.append((parameter, cursor))
    # Starlette's path is decoded: a line break or a ">" in it would end the header or the link.
    path = quote(parts.path, safe=_SAFE)
    netloc = quote(parts.netloc, safe=_SAFE)
    return urlunsplit((parts.scheme, netloc, path, urlencode(query), "")) or "?"


_SAFE = "%/:@[]!$&'()*+,;=~"
