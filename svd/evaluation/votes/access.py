"""Who may speak to the server: this machine alone, or whoever holds a token.

On loopback no token is needed, but only pages of this very server may send votes: the Host header
must be a loopback name (a web page elsewhere cannot pretend to be us) and a POST must come from
our own origin. Bound elsewhere, raters need one token and the owner, who sees results, another.
"""

import hmac
import ipaddress
import os
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import Field
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from svd.atomic import new_file
from svd.errors import LaunchError
from svd.types.base import Record

TOKENS = "tokens.json"
COOKIE: Final = "svd_access"
MAX_BODY_BYTES: Final = 4096  # a vote is some 200
_SAFE: Final = frozenset({"GET", "HEAD"})
_YEAR_S: Final = 365 * 24 * 3600
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; media-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Level = Literal["owner", "rater"]


class Tokens(Record):
    """tokens.json, readable by its owner only."""

    rater: str = Field(min_length=20)
    owner: str = Field(min_length=20)


def read_or_make_tokens(folder: Path, *, renew: bool) -> Tokens:
    """Return a study's tokens; new ones make all links given out before worthless."""
    path = folder / TOKENS
    if path.is_file() and not renew:
        return Tokens.parse(path.read_text(encoding="utf-8"), origin=str(path))
    tokens = Tokens(rater=secrets.token_urlsafe(24), owner=secrets.token_urlsafe(24))
    with new_file(path) as partial:
        partial.unlink(missing_ok=True)
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(tokens.canonical_json())
    return tokens


def is_loopback(host: str) -> bool:
    """Return whether an address to bind to is reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets through what may pass and adds headers that keep a page to itself (ASGI middleware)."""

    def __init__(self, app: ASGIApp, tokens: Tokens | None) -> None:
        """Guard an app; without tokens, only loopback names are answered."""
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on with `scope["level"]`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal, body = self._refusal(scope), b""
        if refusal is None and scope["method"] not in _SAFE:
            read = await _read_body(Headers(scope=scope), receive)
            if read is None:
                refusal = PlainTextResponse(f"more than {MAX_BODY_BYTES} bytes are no vote", 413)
            body = read or b""
        if refusal is not None:
            refusal.headers.update(_HEADERS)
            await refusal(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), _with_headers(send))

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that may not pass; else set its level."""
        request = HTTPConnection(scope)
        if self._tokens is None and not is_loopback(_host(request.headers)):
            return PlainTextResponse("this server answers to localhost only", 421)
        token = request.query_params.get("token")
        if self._tokens is not None and token is not None and scope["method"] == "GET":
            return self._admit(request, token)
        level = self._level(request.cookies)
        if level is None:
            return PlainTextResponse("ask for a link: its token is missing or no longer good", 401)
        if scope["method"] not in _SAFE and not _is_own_origin(request.headers):
            return PlainTextResponse("votes come from this server's own page", 403)
        scope["level"] = level
        return None

    def _level(self, cookies: Mapping[str, str]) -> Level | None:
        if self._tokens is None:
            return "owner"
        return _level_of(cookies.get(COOKIE, ""), self._tokens)

    def _admit(self, request: HTTPConnection, token: str) -> Response:
        """Put a good token into a cookie, so that it does not stay in the address bar."""
        if self._tokens is None or _level_of(token, self._tokens) is None:
            return PlainTextResponse("this link is no longer good", 401)
        answer = RedirectResponse(request.url.path, 303)
        # Lax: a strict cookie is not sent to a page that a link in somebody's mail leads to.
        answer.set_cookie(COOKIE, token, max_age=_YEAR_S, httponly=True, samesite="lax")
        return answer


def _level_of(token: str, tokens: Tokens) -> Level | None:
    if hmac.compare_digest(token.encode(), tokens.owner.encode()):
        return "owner"
    return "rater" if hmac.compare_digest(token.encode(), tokens.rater.encode()) else None


def _host(headers: Headers) -> str:
    host = headers.get("host", "")
    if host.startswith("["):  # an IPv6 address in brackets
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_own_origin(headers: Headers) -> bool:
    """Return whether a browser says that the request is of our page; all browsers say."""
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] == headers.get("host", "")


async def _read_body(headers: Headers, receive: Receive) -> bytes | None:
    """Return the body, or None as soon as it is too large, whatever its header claims."""
    claimed = headers.get("content-length", "0")
    if not claimed.isdigit() or int(claimed) > MAX_BODY_BYTES:
        return None
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            return None
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receiver that hands on the body that was read, once."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            extra = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return with_headers


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        LaunchError: The address cannot be bound to.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as err:
        raise LaunchError(f"cannot listen on {host} port {port}: {err.strerror or err}") from err
