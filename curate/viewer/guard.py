"""Who may ask: the right host name, the page's own origin, and the token where there is one.

A page of somebody else's in the same browser reaches addresses of this machine too. It cannot read answers (no
cross-origin header is ever sent); a name of its own that it points here (DNS rebinding) is refused by the `Host`
header, and a request that changes something by `Origin`.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.datastructures import URL, Headers, MutableHeaders, QueryParams
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "media-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}

_UNKNOWN_NAME = (
    "This server does not answer to that name: open the address that `curate view` printed. "
    "For others, `curate view --host NAME` makes it answer to a name of its machine."
)
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9.-]+)(?::[0-9]{1,5})?")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server there."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Middleware. ``names`` are host names by which the server may be called, besides addresses in figures: where it
    listens on loopback alone, those of loopback. With a ``token`` nothing is told without it: in the address of the
    first visit (``?token=``), by then in a cookie, or as a bearer.
    """

    def __init__(self, app: ASGIApp, *, names: frozenset[str], loopback: bool, token: str = "", port: int = 0) -> None:
        self._app = app
        self._names = {name.lower() for name in names} | {"localhost"}
        self._loopback = loopback
        self._token = token
        self._cookie = f"curate-view-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with the headers that bind the browser."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError("only HTTP is spoken here")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self._app)(scope, receive, guarded)

    def _refusal(self, scope: MutableMapping[str, Any]) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if len(headers.getlist("host")) != 1 or not self._knows(host):
            return PlainTextResponse(_UNKNOWN_NAME, 421)
        if scope["method"] not in {"GET", "HEAD"} and not _is_own_page(headers, host):
            return PlainTextResponse("Only the page itself may change something.", 403)
        return self._without_token(scope, headers) if self._token else None

    def _knows(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        name = found["name"] if found else ""
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return name in self._names
        return address.is_loopback or not self._loopback

    def _without_token(self, scope: MutableMapping[str, Any], headers: Headers) -> Response | None:
        given = QueryParams(scope["query_string"]).get("token")
        if given is not None and scope["method"] == "GET" and self._is_token(given):
            response = RedirectResponse(URL(scope=scope).remove_query_params("token").path, 303)
            response.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
            return response
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and self._is_token(bearer)
        if known or self._is_token(_cookie(headers, self._cookie)):
            return None
        return PlainTextResponse("Open the address that `curate view` printed: it holds a token.", 401)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self._token.encode())


def _is_own_page(headers: Headers, host: str) -> bool:
    """Browsers say where a request comes from; a form of another site cannot say that it holds JSON."""
    origin = headers.get("origin", "").lower()
    is_json = headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"
    return is_json and origin in {f"http://{host}", f"https://{host}"}


def _cookie(headers: Headers, name: str) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return found.value if found else ""
