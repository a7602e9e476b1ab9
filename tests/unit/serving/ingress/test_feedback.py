"""Verdicts: stored with what they are about, by whoever had it drawn, also after a restart."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from corrector.feedback import GenerationRecord, Verdict, read_verdicts
from serving.ingress.app import create_app
from serving.ingress.images import generation
from serving.ingress.observer import IngressObserver
from serving.settings import IngressSettings
from tests.support.app_server import serving
from tests.support.ingress import LYING, World, post
from tests.unit.serving.ingress.test_access import add, bearer


@pytest.mark.parametrize("stream", [False, True])
def test_a_verdict_is_stored_with_prompt_seeds_and_adapter(address: str, world: World, stream: bool) -> None:
    body = {
        "prompt": LYING,
        "seed": 4,
        "num_inference_steps": 2,
        "negative_prompt": "a dog",
        "stream": stream,
    }
    request_id = post(address, body).headers["x-request-id"]
    verdict = {"request_id": request_id, "verdict": "bad", "note": "drei Beine\n草"}
    answer = post(address, verdict, path="/v1/feedback")
    assert (answer.status_code, answer.json()) == (200, {"request_id": request_id, "verdict": "bad"})
    line = read_verdicts(world.verdicts)[-1]
    assert (line["verdict"], line["note"], line["key"]) == ("bad", "drei Beine\n草", "anonymous")
    request = line["request"]
    assert (request["prompt"], request["seeds"], request["adapter"]) == (LYING, [4], "lying@1")
    assert request["settings"]["negative_prompt"] == "a dog"
    assert request["adapter_sha256"] == world.snapshot.adapters["lying"].champion.identity.sha256


def test_what_was_not_drawn_gets_no_verdict(address: str) -> None:
    failed = post(address, {"prompt": LYING, "adapter": "nobody"}).headers["x-request-id"]
    for unknown in ("nothing", failed):
        answer = post(address, {"request_id": unknown, "verdict": "good"}, path="/v1/feedback")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "request_not_found")
    for wrong in ({"note": "x" * 2001}, {"note": "\x00"}, {"request_id": "a b"}, {"verdict": "Bad"}):
        answer = post(address, {"request_id": "a", "verdict": "bad", **wrong}, path="/v1/feedback")
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, *wrong)


def test_a_key_judges_only_what_it_had_drawn(
    tmp_path: Path, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    mine, other = (add(path, name, capsys=capsys) for name in ("mine", "other"))
    with serving(create_app(world.service, IngressSettings(keys=path))) as address:
        for key in (mine, other):
            headers = bearer(key) | {"x-request-id": f"same-for-both-{key == mine}"}
            assert (
                post(address, {"prompt": LYING, "num_inference_steps": 1}, headers=headers).status_code == 200
            )
        verdict = {"request_id": "same-for-both-True", "verdict": "good"}
        assert post(address, verdict, path="/v1/feedback", headers=bearer(other)).status_code == 404
        assert post(address, verdict, path="/v1/feedback", headers=bearer(mine)).status_code == 200


class Silent:
    """A feedback store that does not answer."""

    async def remember(self, request: GenerationRecord) -> None:
        await asyncio.Event().wait()

    async def record(self, verdict: Verdict) -> bool:
        return False


class Losses(IngressObserver):
    def __init__(self) -> None:
        self.lost = 0

    def feedback_lost(self) -> None:
        self.lost += 1


@pytest.mark.parametrize("stream", [False, True])
def test_images_do_not_wait_for_a_store_that_does_not_answer(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    monkeypatch.setattr(generation, "_REMEMBER_SECONDS", 0.1)
    losses = Losses()
    app = create_app(replace(world.service, feedback=Silent()), IngressSettings(), losses)
    with serving(app) as address:
        body = {"prompt": LYING, "num_inference_steps": 1, "stream": stream}
        answer = post(address, body, timeout=60)
    assert answer.status_code == 200 and "b64_json" in answer.text
    assert losses.lost == 1
    assert "is not remembered: no answer in 0.1 s" in caplog.text
