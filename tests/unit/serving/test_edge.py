"""What Ray Serve's HTTP proxies do before and after the application, as Ray Serve puts them together."""

from ray.serve._private.http_util import RequestIdMiddleware, validate_http_proxy_callback_return
from ray.serve._private.utils import call_function_from_import_path
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.edge import RAY_HEADERS

NAMED = "serving.edge.middlewares"


def edged(app: ASGIApp) -> ASGIApp:
    """The application inside Ray Serve's own middleware, and that inside the edge."""
    app = RequestIdMiddleware(app)
    for middleware in validate_http_proxy_callback_return(call_function_from_import_path(NAMED)):
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return app


def test_what_only_ray_may_say_is_taken_off_requests() -> None:
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(name for name, _ in scope["headers"])
        await PlainTextResponse("")(scope, receive, send)

    TestClient(edged(app)).get(
        "/", headers={"X-Request-Timeout-Seconds": "1", "x-request-disconnect-disabled": "?1", "x-other": "1"}
    )
    assert b"x-other" in seen
    assert not RAY_HEADERS & set(seen)


def test_an_answer_has_one_id_the_applications_own_where_it_gave_one() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("")(scope, receive, send)

    async def named(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse("", headers={"x-request-id": "req-1"})(scope, receive, send)

    for app, expected in ((silent, "offered"), (named, "req-1")):
        answer = TestClient(edged(app)).get("/", headers={"x-request-id": "offered"})
        assert answer.headers.get_list("x-request-id") == [expected]
