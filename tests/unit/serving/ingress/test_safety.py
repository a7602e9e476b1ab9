"""The safety filter withholds images whose score is at least the threshold, also on the way."""

import pytest
import torch

from corrector.evaluation.features import opennsfw
from serving.ingress.app import create_app
from serving.settings import IngressSettings
from tests.support.app_server import serving
from tests.support.ingress import LYING, World, pixels, post


@pytest.mark.parametrize("stream", [False, True])
def test_an_image_is_withheld_from_its_own_score_upwards(address: str, world: World, stream: bool) -> None:
    body = {"prompt": LYING, "num_inference_steps": 4, "seed": 1}
    image = pixels(post(address, body).json()["data"][0]["b64_json"])
    tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
    score = float(opennsfw().features_and_safety(tensor)[1][0])
    assert 0 < score < 1
    body |= {"stream": stream}
    with serving(create_app(world.service, IngressSettings(nsfw_threshold=score * 0.99))) as strict:
        answer = post(strict, body)
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "content_policy_violation"
        assert "b64_json" not in answer.text
    with serving(
        create_app(world.service, IngressSettings(nsfw_threshold=min(1.0, score * 1.01)))
    ) as lenient:
        assert post(lenient, body).status_code == 200


def test_a_preview_is_withheld_too(world: World) -> None:
    with serving(create_app(world.service, IngressSettings(nsfw_threshold=0))) as address:
        answer = post(
            address, {"prompt": LYING, "num_inference_steps": 8, "stream": True, "partial_images": 3}
        )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "content_policy_violation")
