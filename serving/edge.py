"""Middleware of Ray Serve's HTTP proxies: removes request headers that only Ray may set.

Ray loads `middlewares`, which RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names. An ingress does not start without that
variable, and also refuses requests that have such a header.
"""

import os
from collections.abc import Iterable

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from corrector.errors import UserError

VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
VALUE = "serving.edge.middlewares"
RAY_HEADERS = frozenset((b"x-request-timeout-seconds", b"x-request-disconnect-disabled"))
"""By these a client would set Ray Serve's time limit, or let its request be worked on after it has gone."""
_REQUEST_ID = b"x-request-id"


class Edge:
    """ASGI middleware of the proxies: requests lose RAY_HEADERS, and answers keep the application's x-request-id, where Ray
    Serve adds another."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name.lower() not in RAY_HEADERS]

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _one_id(message.get("headers", ()))}
            await send(message)

        await self._app({**scope, "headers": headers}, receive, sending)


class RefuseRayHeaders:
    """ASGI middleware of the ingress: refuses requests with RAY_HEADERS, which came through a proxy without `Edge`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and RAY_HEADERS & {name.lower() for name, _ in scope["headers"]}:
            from serving.ingress.http.errors import ApiError

            message = f"the HTTP proxy of this server was started without {VALUE}; tell its operator"
            answer = ApiError(503, message, code="proxy_misconfigured")
            await answer.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)


def check_environment() -> None:
    """Check that Ray was started with the variable on this node.

    Raises:
        UserError: The variable is not set.
    """
    if not os.environ.get(VARIABLE):
        raise UserError(
            f"{VARIABLE} is not set where Ray was started, so clients could lift Ray Serve's limits; "
            f"start Ray with {VARIABLE}={VALUE}"
        )


def _one_id(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers with the first x-request-id only, which is the application's."""
    kept: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name.lower() != _REQUEST_ID or all(other.lower() != _REQUEST_ID for other, _ in kept):
            kept.append((name, value))
    return kept


def middlewares() -> list[Middleware]:
    """The middleware of a proxy; Ray Serve calls this when a proxy starts."""
    return [Middleware(Edge)]
