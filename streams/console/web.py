"""The web application: the page, its data, its stream, and commands."""

from __future__ import annotations

import logging
import secrets
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from schemas.control import AlertEvent, ControlEvent
from schemas.log import Command, OperatorCommand
from schemas.version import VERSION
from streams.console.gatekeeper import (
    Gatekeeper,
    SignedIn,
    TooManyAttemptsError,
    WrongTokenError,
)
from streams.console.history import Range, history
from streams.console.hub import Hub
from streams.console.model import ConsoleModel
from streams.console.sign_in import csrf_token
from streams.console.store import Store
from streams.console.tokens import SECRET_BYTES, Role
from streams.console.views import decision_view
from streams.console.web_assets import Assets
from streams.console.web_guard import (
    SecurityHeaders,
    clear_cookie,
    cookie_of,
    forgery,
    insecure,
    set_cookie,
)
from streams.errors import CommandRefusedError, CommandUnansweredError, TokenFileError

__all__ = ["STATIC", "Ask", "Counts", "Parts", "create_web"]

log = logging.getLogger("driftgate.console")

STATIC = Path(__file__).parent / "static"
BODY_BYTES = 16_384
"""Of a request: the longest reason and token fit in many times over."""
RANGE_DAYS = 366
OFFERED = frozenset(
    {Command.PAUSE, Command.RESUME, Command.PROMOTE, Command.ABORT, Command.RETRY,
     Command.ACKNOWLEDGE}
)  # fmt: skip
"""Not `start`, which needs a policy: that is a file, and is started with from where it lies."""
STALE = frozenset({Command.RESUME, Command.PROMOTE, Command.RETRY})
"""Go forward, so that whoever gives them must have seen where the rollout is now. What stops it is
always meant."""

Ask = Callable[[OperatorCommand], Awaitable[ControlEvent | AlertEvent]]
"""Sends a command and waits for the monitor's answer.

Raises:
    CommandRefusedError: the monitor's refusal.
    CommandUnansweredError: nobody has answered.
"""


class Counts:
    """What was done on the page, for the metrics."""

    def __init__(self) -> None:
        self.commands: Counter[tuple[str, str]] = Counter()
        """By command and outcome: done, refused, unanswered."""


class Parts(NamedTuple):
    """What the application is made of."""

    model: ConsoleModel
    store: Store
    hub: Hub
    gatekeeper: Gatekeeper
    ask: Ask
    default_service: str
    ready: Callable[[], str | None]
    """What keeps it from being ready; None when nothing does."""
    metrics: Callable[[], bytes]
    """What Prometheus is told, in its text format."""
    counts: Counts


class _SignIn(msgspec.Struct, forbid_unknown_fields=True):
    token: Annotated[str, Meta(min_length=1, max_length=500)]


class _Asked(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A command as the page sends it: the actor is who has signed in."""

    service: Annotated[str, Meta(min_length=1, max_length=100)]
    command: Command
    reason: Annotated[str, Meta(max_length=2000)] = ""
    full: bool = False
    alert_key: Annotated[str, Meta(max_length=500)] | None = None
    revision: int | None = None
    """Of the rollout as it was seen."""


def create_web(parts: Parts) -> Starlette:
    """The application.

    Args:
        parts: what it shows and acts by.
    """
    web, assets = _Web(parts), Assets(STATIC)
    return Starlette(
        routes=[
            Route("/", assets.page),
            Route("/api/session", web.session),
            Route("/api/sign-in", web.sign_in, methods=["POST"]),
            Route("/api/sign-out", web.sign_out, methods=["POST"]),
            Route("/api/live", web.live),
            Route("/api/history", web.history),
            Route("/api/commands", web.command, methods=["POST"]),
            Route("/healthz", web.alive),
            Route("/readyz", web.ready),
            Route("/metrics", web.metrics),
            Route("/static/{path:path}", assets.file),
        ],
        middleware=[Middleware(SecurityHeaders), Middleware(GZipMiddleware, minimum_size=1000)],
        exception_handlers={
            HTTPException: _as_json,
            TokenFileError: _without_tokens,
        },
    )


class _Web:
    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def alive(self, _request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def ready(self, _request: Request) -> Response:
        wrong = self._parts.ready()
        return Response(
            f"{wrong or 'ok'}\n", 503 if wrong else 200, media_type="text/plain; charset=utf-8"
        )

    async def metrics(self, _request: Request) -> Response:
        text = await run_in_threadpool(self._parts.metrics)
        return Response(text, media_type="text/plain; version=0.0.4")

    async def session(self, request: Request) -> Response:
        """Who has signed in, and the token that POSTs must carry."""
        secret = cookie_of(request)
        signed = await self._parts.gatekeeper.who(secret)
        fresh = secret is None or signed is None
        if fresh:
            # Of nobody yet; a sign-in must carry the token that goes with it.
            secret = secrets.token_urlsafe(SECRET_BYTES)
        assert secret is not None
        answer = _json(
            {
                "signed_in": signed is not None,
                "name": signed.token.name if signed else None,
                "role": signed.token.role if signed else None,
                "expires_ms": signed.session.expires_ms if signed else None,
                "csrf": csrf_token(secret),
                "insecure": insecure(request),
                "default_service": self._parts.default_service if signed else None,
                "version": VERSION if signed else None,
            }
        )
        if fresh and not insecure(request):
            set_cookie(request, answer, secret, 3600)
        return answer

    async def sign_in(self, request: Request) -> Response:
        if insecure(request):
            raise HTTPException(
                403,
                "this page was reached by plain HTTP from another machine, so a sign-in would "
                "travel in the clear: use an SSH tunnel to localhost, or a proxy that ends TLS",
            )
        _refuse_forgery(request)
        asked = await _body(request, _SignIn)
        address = request.client.host if request.client else "unknown"
        try:
            secret, signed = await self._parts.gatekeeper.sign_in(asked.token.strip(), address)
        except WrongTokenError as error:
            raise HTTPException(
                401, "this token is not valid: it is wrong, has expired or was revoked"
            ) from error
        except TooManyAttemptsError as error:
            raise HTTPException(429, str(error), {"retry-after": str(error.wait_s)}) from error
        answer = _json({"name": signed.token.name, "role": signed.token.role})
        set_cookie(request, answer, secret, self._parts.gatekeeper.life_s(signed))
        return answer

    async def sign_out(self, request: Request) -> Response:
        _refuse_forgery(request)
        await self._parts.gatekeeper.sign_out(await self._signed_in(request))
        answer = _json({})
        clear_cookie(request, answer)
        return answer

    async def live(self, request: Request) -> Response:
        """The stream: every section at once, then each when it has changed."""
        await self._signed_in(request)
        if self._parts.hub.full:
            raise HTTPException(503, "too many pages are open: close some")
        service = _service(request)
        return StreamingResponse(
            self._events(request, service),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    async def _events(self, request: Request, service: str) -> AsyncIterator[bytes]:
        secret = cookie_of(request)
        yield b"retry: 1000\n\n"
        async for pushed in self._parts.hub.follow(service):
            # A token that was revoked, or has expired, ends what it has opened.
            if await self._parts.gatekeeper.who(secret) is None:
                yield b"event: signed_out\ndata: {}\n\n"
                return
            for name, data in pushed:
                # JSON has no line breaks outside of strings, and in strings they are escaped.
                yield b"event: %b\ndata: %b\n\n" % (name.encode(), data)

    async def history(self, request: Request) -> Response:
        await self._signed_in(request)
        over = _range(request)
        found = await run_in_threadpool(history, self._parts.store, _service(request), over)
        answer = _json(found)
        answer.headers["cache-control"] = "no-store"
        return answer

    async def command(self, request: Request) -> Response:
        """Hand a command to the monitor, and say what it says."""
        _refuse_forgery(request)
        signed = await self._signed_in(request)
        if signed.token.role is not Role.OPERATOR:
            raise HTTPException(
                403, f"{signed.token.name} may look and not act: it takes an operator's token"
            )
        asked = await _body(request, _Asked)
        if asked.command not in OFFERED:
            raise HTTPException(400, f"{asked.command} is not given here: use the command line")
        self._refuse_stale(asked)
        return await self._obeyed(asked, signed)

    def _refuse_stale(self, asked: _Asked) -> None:
        view = self._parts.model.services.get(asked.service)
        now = view.rollout.revision if view and view.rollout else 0
        if asked.command in STALE and asked.revision != now:
            raise HTTPException(
                409,
                f"the rollout has moved on since you looked: it is at revision {now}, and you saw "
                f"{asked.revision}. Look again, then decide",
            )

    async def _obeyed(self, asked: _Asked, signed: SignedIn) -> Response:
        command = OperatorCommand(
            id=uuid.uuid4().hex,
            service=asked.service,
            command=asked.command,
            actor=signed.token.name,
            reason=asked.reason.strip(),
            full=asked.full,
            alert_key=asked.alert_key,
        )
        log.info("%s asks for %s of %s", command.actor, command.command, command.service)
        counts = self._parts.counts.commands
        try:
            answer = await self._parts.ask(command)
        except CommandRefusedError as error:
            counts[asked.command, "refused"] += 1
            raise HTTPException(422, str(error)) from error
        except CommandUnansweredError as error:
            counts[asked.command, "unanswered"] += 1
            raise HTTPException(504, str(error)) from error
        counts[asked.command, "done"] += 1
        if isinstance(answer, AlertEvent):
            return _json({"alert": answer})
        return _json({"decision": decision_view(answer)})

    async def _signed_in(self, request: Request) -> SignedIn:
        signed = await self._parts.gatekeeper.who(cookie_of(request))
        if signed is None:
            raise HTTPException(401, "sign in first")
        return signed


def _refuse_forgery(request: Request) -> None:
    wrong = forgery(request)
    if wrong is not None:
        raise HTTPException(403, f"refused, since this request may be forged: {wrong}")


def _service(request: Request) -> str:
    service = request.query_params.get("service", "")
    if not 0 < len(service) <= 100:
        raise HTTPException(400, "name a service: ?service=NAME")
    return service


def _range(request: Request) -> Range:
    try:
        from_ms = int(request.query_params["from"])
        to_ms = int(request.query_params["to"])
    except (KeyError, ValueError) as error:
        raise HTTPException(400, "a range is ?from=MS&to=MS, ms since 1970") from error
    if not (0 <= from_ms < to_ms <= from_ms + RANGE_DAYS * 86_400_000 and to_ms < 2**52):
        raise HTTPException(400, f"a range lasts more than 0 and at most {RANGE_DAYS} days")
    return Range(from_ms, to_ms)


async def _body(request: Request, kind: type[Any]) -> Any:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "send application/json")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES:
            raise HTTPException(413, f"more than {BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise HTTPException(400, f"cannot be read: {error}") from error


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _as_json(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # it is registered for these
    answer = _json({"error": error.detail}, error.status_code)
    answer.headers.update(error.headers or {})
    return answer


async def _without_tokens(_request: Request, error: Exception) -> Response:
    log.error("nobody can be let in: %s", error)
    return _json({"error": "the console cannot read its tokens; its log says why"}, 503)
