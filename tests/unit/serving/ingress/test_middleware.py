"""What surrounds every request: ids, the log, observers, and failures that nobody foresaw."""

import asyncio
import json
import logging
from dataclasses import replace
from typing import Any

import pytest

from serving.engine.request import GeneratedImage, ImageRequest
from serving.engine.stats import EngineStats
from serving.ingress.app import create_app
from serving.ingress.image_service import PreviewCallback
from serving.ingress.images import generation
from serving.ingress.observer import IngressObserver
from serving.router.decision import Decision
from serving.settings import IngressSettings
from tests.support.app_server import serving
from tests.support.ingress import GUARD, LYING, World, post


def test_every_request_is_one_line_of_json_without_its_prompt(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "serving.access")
    post(address, {"prompt": LYING, "num_inference_steps": 1, "n": 2}, headers={"x-request-id": "mine"})
    post(address, {"prompt": GUARD, "n": 99})
    drawn, refused = (
        json.loads(record.message) for record in caplog.records if record.name == "serving.access"
    )
    assert drawn.pop("ms") > 0
    assert drawn == {
        "request_id": "mine",
        "key": "anonymous",
        "method": "POST",
        "path": "/v1/images/generations",
        "status": 200,
        "code": None,
        "images": 2,
        "route": "exact",
        "score": None,
        "adapter": "lying@1",
        "alias": "champion",
        "shadow": [],
    }
    assert (refused["status"], refused["code"]) == (400, "invalid_value")
    assert LYING not in caplog.text
    assert GUARD not in caplog.text


class Tally(IngressObserver):
    """What an observer was told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def routed(self, decision: Decision) -> None:
        self.told.append(("routed", decision.route))

    def rejected(self, status: int, code: str) -> None:
        self.told.append(("rejected", status, code))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        self.told.append(("answered", method, route, status))

    def generated(self, decision: Decision, queue_seconds: float, denoise_seconds: float) -> None:
        self.told.append(("drawn", decision.route, denoise_seconds > 0))


def test_an_observer_is_told_of_routes_images_rejections_and_answers(world: World) -> None:
    tally = Tally()
    with serving(create_app(world.service, IngressSettings(), tally)) as address:
        post(address, {"prompt": LYING, "num_inference_steps": 1})
        post(address, {"prompt": LYING, "n": 0})
        post(address, {}, path="/v1/nothing/at/all")
    draw = ("POST", "/v1/images/generations")
    assert tally.told == [
        ("routed", "exact"),
        ("drawn", "exact", True),
        ("answered", *draw, 200),
        ("rejected", 400, "invalid_value"),
        ("answered", *draw, 400),
        ("rejected", 404, "path_not_found"),
        ("answered", "POST", "", 404),
    ]


class Failing:
    """Engines that have a mistake in them."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def stats(self) -> EngineStats | None:
        raise self._error

    async def generate(
        self, request: ImageRequest, on_preview: PreviewCallback | None = None
    ) -> GeneratedImage:
        raise self._error


def test_a_failure_that_nobody_foresaw_is_500_and_only_the_log_has_the_rest(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(
        replace(world.service, engines=Failing(RuntimeError("secret of the house"))), IngressSettings()
    )
    with serving(app) as address:
        for body in ({"prompt": LYING}, {"prompt": LYING, "n": 3}, {"prompt": LYING, "stream": True}):
            answer = post(address, body)
            assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
            assert "secret" not in answer.text
            assert answer.headers["x-request-id"] in caplog.text
        assert "secret of the house" in caplog.text


def test_a_service_that_never_answers_is_given_up_after_the_deadline(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "_GRACE_SECONDS", 0.1)

    class Stuck(Failing):
        async def generate(
            self, request: ImageRequest, on_preview: PreviewCallback | None = None
        ) -> GeneratedImage:
            await asyncio.sleep(3600)
            raise AssertionError

    with serving(
        create_app(replace(world.service, engines=Stuck(RuntimeError())), IngressSettings())
    ) as address:
        answer = post(address, {"prompt": LYING, "timeout": 0.1})
    assert (answer.status_code, answer.json()["error"]["code"]) == (408, "deadline_missed")
