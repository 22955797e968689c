"""What every answer carries, and what every request must: headers, cookies, CSRF tokens."""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streams.console.sign_in import csrf_token

__all__ = [
    "CSRF_HEADER",
    "SecurityHeaders",
    "clear_cookie",
    "cookie_of",
    "forgery",
    "insecure",
    "set_cookie",
]

CSRF_HEADER = "x-csrf-token"
SESSION_COOKIE = "driftgate_session"
_LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})

# No inline script or style, nothing from elsewhere, no HTML made of strings (Trusted Types).
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class SecurityHeaders:
    """Adds the headers to every answer.

    Args:
        app: that answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                # A page of today with scripts of yesterday would not fit together.
                headers.setdefault("cache-control", "no-cache")
            await send(message)

        await self._app(scope, receive, with_headers)


def insecure(request: Request) -> bool:
    """Whether the page was reached by plain HTTP from another machine.

    A cookie would then travel in the clear, so nobody can sign in. ``localhost`` never leaves the
    machine; behind a proxy that ends TLS the scheme is the one that it says.
    """
    return request.url.scheme != "https" and not _is_local(request)


def _is_local(request: Request) -> bool:
    return (request.url.hostname or "") in _LOCAL


def _cookie_name(request: Request) -> str:
    # Browsers take this prefix only with Secure, Path=/ and without a domain.
    return f"__Host-{SESSION_COOKIE}" if request.url.scheme == "https" else SESSION_COOKIE


def cookie_of(request: Request) -> str | None:
    """The secret in the session's cookie."""
    return request.cookies.get(_cookie_name(request))


def set_cookie(request: Request, response: Response, secret: str, life_s: int) -> None:
    """Give the browser its secret."""
    response.set_cookie(
        _cookie_name(request),
        secret,
        max_age=life_s,
        path="/",
        secure=request.url.scheme == "https" or not _is_local(request),
        httponly=True,
        samesite="strict",
    )


def clear_cookie(request: Request, response: Response) -> None:
    """Take it back."""
    response.delete_cookie(
        _cookie_name(request),
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def forgery(request: Request) -> str | None:
    """What makes a POST look as if another site had sent it; None when nothing does.

    The token must be that of the cookie, and where the browser names the page that asks, it must be
    one of ours.
    """
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return f"it comes from another site ({origin})"
    if request.headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return "it comes from another site"
    secret = cookie_of(request)
    given = request.headers.get(CSRF_HEADER, "")
    if not secret or not hmac.compare_digest(csrf_token(secret).encode(), given.encode()):
        return f"its {CSRF_HEADER} header is missing or wrong"
    return None
