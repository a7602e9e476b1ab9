"""AccessMiddleware: sets a request's id and caller, answers errors, and writes the access log."""

import json
import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.ingress.access.authentication import Authenticator
from serving.ingress.access.limits import RateLimits
from serving.ingress.app_context import RequestContext
from serving.ingress.http.errors import CLIENT_GONE, to_api_error
from serving.ingress.observer import IngressObserver

logger = logging.getLogger(__name__)
access = logging.getLogger("serving.access")
"""One JSON object per request."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PUBLIC = frozenset(("/", "/healthz", "/readyz", "/openapi.json"))
"""Paths that need no key; all others do, those that do not exist included."""
_SHOWN_CHARS = 256


class AccessMiddleware:
    """Keys and limits, and what every answer has. HEAD is answered as GET, without the body (RFC 9110, 9.3.2)."""

    def __init__(
        self, app: ASGIApp, authenticator: Authenticator, limits: RateLimits, observer: IngressObserver
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._limits = limits
        self._observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        context = RequestContext(_request_id(headers.get("x-request-id")), scope["method"], scope["path"])
        # The server reads the scope that it gave, so this one is changed.
        scope = {**scope, "state": {**scope.get("state", {}), "context": context}}
        # Some servers pass a prefix that ends with a slash, which would remove the slash from every path.
        scope["root_path"] = str(scope.get("root_path", "")).rstrip("/")
        if is_head := scope["method"] == "HEAD":
            scope["method"] = "GET"

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                context.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = context.id
            elif is_head and message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        try:
            await self._serve(context, headers, scope, receive, sending)
        finally:
            self._ended(context, scope)

    async def _serve(
        self, context: RequestContext, headers: Headers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            if _path(scope) not in _PUBLIC:
                context.caller = self._authenticator.caller(headers.get("authorization"))
                self._limits.count_request(context.caller)
            await self._app(scope, receive, send)
        except Exception as error:
            answer = to_api_error(error)
            if answer.status_code >= 500:
                logger.exception("request %s failed", context.id, extra={"request_id": context.id})
            context.code = answer.code
            if context.status is None:
                await answer.response()(scope, receive, send)

    def _ended(self, context: RequestContext, scope: Scope) -> None:
        seconds = time.monotonic() - context.started
        # Without a status the task was cancelled, which Ray does when a client disconnects.
        status = CLIENT_GONE if context.status is None else context.status
        if context.code is not None:
            self._observer.rejected(status, context.code)
        template = str(getattr(scope.get("route"), "path", ""))
        self._observer.answered(context.method, template, status, seconds)
        access.info("%s", _line(context, status, seconds))


def _path(scope: Scope) -> str:
    """The path within the app, which may be mounted below a prefix."""
    path, prefix = str(scope["path"]), str(scope["root_path"])
    return path[len(prefix) :] if prefix and path.startswith(f"{prefix}/") else path


def _request_id(offered: str | None) -> str:
    """The client's id, if it is safe in logs and file names; otherwise a new one."""
    if offered is not None and _REQUEST_ID.fullmatch(offered):
        return offered
    return f"req-{secrets.token_hex(12)}"


def _line(context: RequestContext, status: int, seconds: float) -> str:
    decision = context.decision
    line = {
        "request_id": context.id,
        "key": context.caller.name,
        "method": context.method,
        "path": context.path[:_SHOWN_CHARS],
        "status": status,
        "code": context.code,
        "ms": round(seconds * 1000),
        "images": context.images,
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
