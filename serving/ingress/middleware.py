"""Around every request: its id, its caller, its line in the log, and an answer whatever happens."""

from __future__ import annotations

import json
import logging
import re
import secrets
import time
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.ingress.auth import ANYBODY, Caller, KeyRing
from serving.ingress.errors import CLIENT_GONE, of_service
from serving.ingress.limits import Limits
from serving.ingress.service import Observer
from serving.router.decision import Decision

logger = logging.getLogger(__name__)
access = logging.getLogger("serving.access")
"""One JSON object per request."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PUBLIC = frozenset(("/", "/healthz", "/readyz", "/openapi.json"))
"""Paths that need no key; all others do, those that do not exist included."""
_SHOWN_CHARS = 256


@dataclass
class Exchange:
    """A request and what became of it; in the request's state as `exchange`.

    Attributes:
        decision: Where its prompt went, for those that draw.
        code: Of the error that it was answered with.
    """

    id: str
    method: str
    path: str
    started: float = field(default_factory=time.monotonic)
    caller: Caller = ANYBODY
    decision: Decision | None = None
    images: int = 0
    status: int | None = None
    code: str | None = None


class Exchanges:
    """ASGI middleware; see the module."""

    def __init__(self, app: ASGIApp, keys: KeyRing, limits: Limits, observer: Observer) -> None:
        self._app = app
        self._keys = keys
        self._limits = limits
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        exchange = Exchange(_request_id(headers.get("x-request-id")), scope["method"], scope["path"])
        # A prefix that ends with a slash, as some servers pass it on, would take the slash from every path.
        scope["root_path"] = str(scope.get("root_path", "")).rstrip("/")
        scope["state"] = {**scope.get("state", {}), "exchange": exchange}

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = exchange.id
            await send(message)

        try:
            await self._serve(exchange, headers, scope, receive, sending)
        finally:
            self._ended(exchange, scope)

    async def _serve(
        self, exchange: Exchange, headers: Headers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            if _path(scope) not in _PUBLIC:
                exchange.caller = self._keys.caller(headers.get("authorization"))
                self._limits.count_request(exchange.caller)
            await self._app(scope, receive, send)
        except Exception as error:
            answer = of_service(error)
            if answer.status_code >= 500:
                logger.exception("request %s failed", exchange.id)
            exchange.code = answer.code
            if exchange.status is None:
                await answer.response()(scope, receive, send)

    def _ended(self, exchange: Exchange, scope: Scope) -> None:
        seconds = time.monotonic() - exchange.started
        # Nobody was answered: the task was cancelled, as Ray does when a client goes away.
        status = CLIENT_GONE if exchange.status is None else exchange.status
        if exchange.code is not None:
            self._observer.rejected(status, exchange.code)
        template = str(getattr(scope.get("route"), "path", ""))
        self._observer.answered(exchange.method, template, status, seconds)
        access.info("%s", _line(exchange, status, seconds))


def _path(scope: Scope) -> str:
    """Of the request within the app, which may be mounted below a prefix."""
    path, prefix = str(scope["path"]), str(scope["root_path"])
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path


def _request_id(offered: str | None) -> str:
    """The client's own, if it can stand in a log and a file name."""
    if offered is not None and _REQUEST_ID.fullmatch(offered):
        return offered
    return f"req-{secrets.token_hex(12)}"


def _line(exchange: Exchange, status: int, seconds: float) -> str:
    decision = exchange.decision
    line = {
        "request_id": exchange.id,
        "key": exchange.caller.name,
        "method": exchange.method,
        "path": exchange.path[:_SHOWN_CHARS],
        "status": status,
        "code": exchange.code,
        "ms": round(seconds * 1000),
        "images": exchange.images,
    }
    if decision is not None:
        line |= {
            "route": decision.route,
            "score": decision.score,
            "adapter": str(decision.adapter) if decision.adapter else "base",
            "alias": decision.alias,
            "shadow": [str(adapter) for adapter in decision.shadow],
        }
    return json.dumps(line)
