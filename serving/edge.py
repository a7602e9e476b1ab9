"""What Ray Serve's HTTP proxies do before anything else, named by RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

RAY_HEADERS = frozenset((b"x-request-timeout-seconds", b"x-request-disconnect-disabled"))
"""Neither is the client's to give."""


_REQUEST_ID = b"x-request-id"


class Edge:
    """ASGI middleware: requests lose the headers by which a client would set Ray Serve's time limit, or switch off that its
    request is cancelled when it goes away; answers keep the id that the application gave them, where Ray Serve adds one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name.lower() not in RAY_HEADERS]

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _one_id(message.get("headers", ()))}
            await send(message)

        await self._app({**scope, "headers": headers}, receive, sending)


def _one_id(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The application's comes first."""
    kept: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name.lower() != _REQUEST_ID or all(other.lower() != _REQUEST_ID for other, _ in kept):
            kept.append((name, value))
    return kept


def middlewares() -> list[Middleware]:
    """Called by every proxy when it starts."""
    return [Middleware(Edge)]
