"""What Ray Serve's HTTP proxies do before and after the application, as Ray Serve puts them together."""

import pytest
from ray.serve._private.http_util import RequestIdMiddleware, validate_http_proxy_callback_return
from ray.serve._private.utils import call_function_from_import_path
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from corrector.errors import UserError
from serving.edge import RAY_HEADERS, VALUE, VARIABLE, RefuseRayHeaders, check_environment


def edged(app: ASGIApp) -> ASGIApp:
    """The application inside Ray Serve's own middleware, and that inside the edge."""
    app = RequestIdMiddleware(app)
    for middleware in validate_http_proxy_callback_return(call_function_from_import_path(VALUE)):
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


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("")(scope, receive, send)


def test_an_ingress_behind_a_proxy_without_the_edge_refuses_what_only_ray_may_say() -> None:
    ingress = RefuseRayHeaders(hello)
    for header in RAY_HEADERS:
        headers = {header.decode().upper(): "1"}
        answer = TestClient(ingress).get("/", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "proxy_misconfigured")
        assert TestClient(edged(ingress)).get("/", headers=headers).status_code == 200
    assert TestClient(ingress).get("/").status_code == 200


def test_an_ingress_does_not_start_where_ray_was_started_without_the_edge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, VALUE)
    check_environment()
    for value in ("", None):
        if value is None:
            monkeypatch.delenv(VARIABLE)
        else:
            monkeypatch.setenv(VARIABLE, value)
        with pytest.raises(UserError, match=f"start Ray with {VARIABLE}={VALUE}"):
            check_environment()
