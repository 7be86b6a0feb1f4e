"""Idempotency-Key: a request of an unsafe method that may be sent twice, and is done once.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
"""

import inspect
import re
from collections.abc import Callable, Collection, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from typing import Any

from anyio import from_thread
from fastapi import FastAPI, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

from stillroom.errors import ConfigurationError, IdempotencyKeyError
from stillroom.idempotency import Answer, IdempotencyKeys
from stillroom.idempotency import Request as Claim
from stillroom.manager import DatabaseSessionManager
from stillroom.routes import route_of

Handle = Callable[[Request], Coroutine[Any, Any, Response]]
OpenSession = Callable[[DatabaseSessionManager], AsyncSession]

HEADERS = frozenset({
    "cache-control", "content-disposition", "content-language", "content-location", "content-type",
    "etag", "last-modified", "link", "location", "vary",
})  # fmt: skip
"""The headers of an answer that are kept with it."""


def one_for_all(_request: Request) -> str:
    """Let the keys of all clients be of one scope."""
    return ""


class Idempotency:
    """Let clients send a request again: ``install(app, manager, idempotency=Idempotency(KEYS))``.

    A request of an unsafe method with a key is done once: what was answered below 400 is kept in
    the transaction of the work, and sent again, with ``Idempotency-Replayed: true``, to whoever
    sends the same once more. While the first is under way the second is a 409, the key of another
    request is a 422. The key is looked up when the view is about to run: a request that is not
    allowed or not valid has been refused by then, and what is sent again has passed the same tests.

    `scope` says whose the key is, for applications whose users must not meet each other's answers:
    it gets the request, after all dependencies. `headers` are kept beside HEADERS, in lower case;
    never choose one that is secret, like Set-Cookie.

    A stream cannot be kept: such a view answers 400 to a key. A view that commits by itself gives
    up what the key promises for what it has committed.
    """

    def __init__(
        self,
        keys: IdempotencyKeys,
        *,
        scope: Callable[[Request], str] = one_for_all,
        headers: Collection[str] = (),
    ) -> None:
        self.keys = keys
        self.scope = scope
        self.headers = HEADERS | {name.lower() for name in headers}

    def install(self, app: FastAPI, manager: DatabaseSessionManager) -> None:
        """Answer the application's requests with a key; its table is in the manager's database."""
        setattr(app.state, _INSTALLED, _Installed(self, manager))


async def keyed_request(request: Request, *, is_required: bool) -> "KeyedRequest | None":
    """Return the request as one with a key, None where it has none or no application knows of any.

    Raises IdempotencyKeyError for a key that is missing or malformed.
    """
    given = [value for name, value in request.scope["headers"] if name == _NAME]
    if not given and not is_required:
        return None
    installed: _Installed | None = getattr(request.app.state, _INSTALLED, None)
    if installed is None:
        if is_required:
            raise ConfigurationError(_NOT_INSTALLED)
        return None
    if not given:
        raise IdempotencyKeyError("missing", "The request has no Idempotency-Key, and needs one.")
    key = _parse(given)
    await request.body()  # read now, it is there still when FastAPI has made a form of it
    return KeyedRequest(request, key, installed)


def answer_once(view: Callable[..., Any]) -> Callable[..., Any]:
    """Let a view claim the key of its request, if it has one, before it runs."""
    if not (inspect.isfunction(view) or inspect.ismethod(view)) or hasattr(view, _CLAIMS):
        return view
    if inspect.isgeneratorfunction(view) or inspect.isasyncgenfunction(view):
        return view
    if inspect.iscoroutinefunction(view):

        @wraps(view)
        async def claim_and_view(*args: Any, **values: Any) -> Any:
            if (claim := _claim.get()) is not None and (answer := await claim()) is not None:
                return answer
            return await view(*args, **values)

        setattr(claim_and_view, _CLAIMS, True)
        return claim_and_view

    @wraps(view)
    def claim_and_view_in_thread(*args: Any, **values: Any) -> Any:
        claim = _claim.get()
        if claim is not None and (answer := from_thread.run(claim)) is not None:
            return answer
        return view(*args, **values)

    setattr(claim_and_view_in_thread, _CLAIMS, True)
    return claim_and_view_in_thread


class KeyedRequest:
    """A request with a key, in one attempt after another to answer it."""

    def __init__(self, request: Request, key: str, installed: "_Installed") -> None:
        self.is_replayed = False
        """Whether the answer is one that was kept, so that there is nothing to commit."""
        self._request = request
        self._key = key
        self._installed = installed
        self._claimed: tuple[AsyncSession, Claim] | None = None

    async def respond(self, handle: Handle, open_session: OpenSession) -> Response:
        """Run FastAPI's handler, whose view claims the key, in the session that is opened then."""

        async def claim() -> Response | None:
            return await self._claim(open_session(self._installed.manager))

        self._claimed, self.is_replayed = None, False
        token = _claim.set(claim)
        try:
            return await handle(self._request)
        finally:
            _claim.reset(token)

    async def keep(self, response: Response) -> None:
        """Keep the answer, in the session that is about to commit.

        Raises IdempotencyKeyError for an answer that has no body yet, as a stream or a file.
        """
        body: bytes | memoryview | None = getattr(response, "body", None)
        if self._claimed is None or body is None:
            raise IdempotencyKeyError("not_kept", _NOT_KEPT)
        kept = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in response.raw_headers
            if name.decode("latin-1").lower() in self._installed.idempotency.headers
        ]
        answer = Answer(response.status_code, kept, bytes(body))
        await self._installed.idempotency.keys.keep(*self._claimed, answer)

    async def _claim(self, session: AsyncSession) -> Response | None:
        idempotency = self._installed.idempotency
        scope = self._request.scope
        route = f"{scope['method']} {route_of(scope) or ''}"
        path = scope["path"].encode(errors="surrogatepass")
        content = b"\0".join((path, scope["query_string"], await self._request.body()))
        claim = Claim(idempotency.scope(self._request), self._key, route, content)
        self._claimed = session, claim
        answer = await idempotency.keys.claim(session, claim)
        if answer is None:
            return None
        self.is_replayed = True
        response = Response(answer.body, answer.status)
        for name, value in answer.headers:
            response.headers.append(name, value)
        response.headers["Idempotency-Replayed"] = "true"
        return response


@dataclass(frozen=True)
class _Installed:
    idempotency: Idempotency
    manager: DatabaseSessionManager


def _parse(given: list[bytes]) -> str:
    text = given[0].decode("latin-1").strip()
    found = _STRING.fullmatch(text) or _TOKEN.fullmatch(text)
    if found is None or len(given) > 1:
        msg = "The Idempotency-Key is no string of 1 to 255 characters, quoted or not, or it is two"
        raise IdempotencyKeyError("malformed", msg)
    return re.sub(r"\\(.)", r"\1", found[1])


_claim: ContextVar[Callable[[], Coroutine[Any, Any, Response | None]] | None] = ContextVar(
    "stillroom.claim", default=None
)

_CLAIMS = "__stillroom_claims__"
_INSTALLED = "stillroom_idempotency"
_NAME = b"idempotency-key"

# https://www.rfc-editor.org/rfc/rfc9651#section-3.3.3 and 3.3.4; what clients send unquoted is
# often a UUID, which as a token of the RFC could not begin with a digit.
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\]){1,255})"')
_TOKEN = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~:/=-]{1,255})")

_NOT_INSTALLED = (
    "The route requires an Idempotency-Key, and the application keeps none. Make the table with "
    "KEYS = IdempotencyKeys(Base.metadata), and say install(app, manager, "
    "idempotency=Idempotency(KEYS))."
)
_NOT_KEPT = (
    "The answer to a request with an Idempotency-Key cannot be kept: it is a stream or a file, or "
    "its view is no function. Send the request without the key, or answer with a plain Response."
)
