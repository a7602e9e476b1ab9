"""Images by the official client: who draws them, what comes with them, and what they are made of."""

import base64
import io
from xml.etree import ElementTree

import numpy as np
import openai
import pytest
from PIL import Image

from serving.ingress.app import create_app
from serving.ingress.http.headers import provenance_headers
from serving.ingress.http.schema import Provenance
from serving.ingress.images.encoding import NAMESPACE
from serving.settings import IngressSettings
from tests.support.app_server import serving
from tests.support.ingress import (
    GUARD,
    LYING,
    PARAPHRASE,
    SITTING,
    World,
    openai_client,
    pixels,
    post,
)


def drawn(address: str, prompt: str = LYING, **fields: object) -> tuple[np.ndarray, dict[str, str]]:
    raw = openai_client(address).images.with_raw_response.generate(
        prompt=prompt, model="embedded", extra_body={"num_inference_steps": 4, "seed": 5, **fields}
    )
    found = raw.parse().data
    assert found and found[0].b64_json
    return pixels(found[0].b64_json), dict(raw.headers)


def test_a_corrected_prompt_is_drawn_with_its_champion_and_says_so(address: str, world: World) -> None:
    image, headers = drawn(address)
    champion = world.snapshot.adapters["lying"].champion.identity
    assert image.shape == (64, 64, 3)
    assert headers["x-adapter"] == "lying"
    assert headers["x-adapter-version"] == "1"
    assert headers["x-adapter-sha256"] == champion.sha256
    assert headers["x-route"] == "exact"
    assert headers["x-base-revision"] == world.engine.spec.identity
    assert headers["x-seed"] == "5"
    assert int(headers["x-queue-ms"]) >= 0
    assert int(headers["x-denoise-ms"]) > 0
    assert headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize(
    ("prompt", "fields", "adapter", "version", "route"),
    [
        (PARAPHRASE, {}, "lying", "1", "paraphrase"),
        (GUARD, {}, "base", None, "base"),
        (SITTING, {}, "base", None, "base"),
        (LYING, {"adapter": "base"}, "base", None, "requested"),
        (SITTING, {"adapter": "sitting"}, "sitting", "1", "requested"),
        (LYING, {"adapter": "lying@2"}, "lying", "2", "requested"),
        (LYING, {"model": "lying@2"}, "lying", "2", "requested"),
        (GUARD, {"model": "lying"}, "lying", "1", "requested"),
    ],
)
def test_prompts_go_where_the_router_or_the_client_says(
    address: str, prompt: str, fields: dict[str, object], adapter: str, version: str | None, route: str
) -> None:
    _, headers = drawn(address, prompt, **fields)
    assert (headers["x-adapter"], headers.get("x-adapter-version"), headers["x-route"]) == (
        adapter,
        version,
        route,
    )


def test_the_adapter_changes_the_image_and_the_same_request_repeats_it(address: str) -> None:
    corrected, _ = drawn(address)
    again, _ = drawn(address)
    base, _ = drawn(address, adapter="base")
    challenger, _ = drawn(address, adapter="lying@2")
    assert (corrected == again).all()
    for one, other in ((corrected, base), (corrected, challenger), (challenger, base)):
        assert np.abs(one.astype(int) - other).mean() > 1


def test_several_images_have_seeds_one_after_the_other_and_each_is_the_one_of_its_seed(address: str) -> None:
    answer = post(address, {"prompt": LYING, "n": 3, "seed": 5, "num_inference_steps": 4}).json()
    assert [image["seed"] for image in answer["data"]] == [5, 6, 7]
    second = post(address, {"prompt": LYING, "seed": 6, "num_inference_steps": 4}).json()
    difference = pixels(second["data"][0]["b64_json"]).astype(int) - pixels(answer["data"][1]["b64_json"])
    assert np.abs(difference).max() <= 1


def test_a_seed_that_is_not_given_is_drawn_and_told(address: str) -> None:
    first, second = (post(address, {"prompt": LYING, "num_inference_steps": 2}).json() for _ in range(2))
    assert first["provenance"]["seed"] != second["provenance"]["seed"]
    again = post(
        address, {"prompt": LYING, "num_inference_steps": 2, "seed": first["provenance"]["seed"]}
    ).json()
    assert again["data"][0]["b64_json"] != second["data"][0]["b64_json"]
    assert (pixels(again["data"][0]["b64_json"]) == pixels(first["data"][0]["b64_json"])).all()


def test_size_steps_guidance_and_negative_prompt_reach_the_engine(address: str) -> None:
    plain, _ = drawn(address)
    for fields in (
        {"num_inference_steps": 5},
        {"guidance_scale": 6.5},
        {"guidance_scale": 0},
        {"negative_prompt": "a dog"},
    ):
        changed, _ = drawn(address, **fields)
        assert not np.array_equal(changed, plain), fields
    small, _ = drawn(address, size="32x48")
    assert small.shape == (48, 32, 3)


def test_nulls_count_as_left_out(address: str) -> None:
    nulls = dict.fromkeys(
        (
            "n",
            "size",
            "response_format",
            "stream",
            "user",
            "background",
            "quality",
            "style",
            "adapter",
            "timeout",
        )
    )
    plain, given = (
        post(address, {"prompt": LYING, "seed": 1, "num_inference_steps": 2, **more}).json()
        for more in ({}, nulls)
    )
    assert (pixels(plain["data"][0]["b64_json"]) == pixels(given["data"][0]["b64_json"])).all()


@pytest.mark.parametrize(
    ("fields", "ignored"),
    [
        ({}, None),
        (
            {"quality": "auto", "background": "opaque", "moderation": "auto", "response_format": "b64_json"},
            None,
        ),
        ({"quality": "standard", "style": "vivid"}, "quality, style"),
        ({"moderation": "low", "complexity": "high", "style": "natural"}, "style, moderation, complexity"),
    ],
)
def test_what_there_is_no_choice_of_is_ignored_and_named(
    address: str, fields: dict[str, str], ignored: str | None
) -> None:
    for stream in (False, True):
        body = {"prompt": LYING, "num_inference_steps": 1, "stream": stream, **fields}
        answer = post(address, body)
        assert answer.status_code == 200
        assert answer.headers.get("x-ignored-parameters") == ignored


def test_whole_valued_floats_are_whole_numbers(address: str) -> None:
    whole, floats = (
        post(address, {"prompt": LYING, "n": kind(1), "seed": kind(7), "num_inference_steps": kind(2)}).json()
        for kind in (int, float)
    )
    assert floats["data"][0]["seed"] == 7
    first, second = (pixels(answer["data"][0]["b64_json"]) for answer in (whole, floats))
    assert np.array_equal(first, second)


def test_usage_counts_the_transformers_tokens(address: str) -> None:
    usage = post(address, {"prompt": LYING, "n": 2, "num_inference_steps": 1}).json()["usage"]
    # 77 tokens of CLIP and 16 of T5; 64 x 64 pixels are 8 x 8 patches of the latents.
    assert usage == {
        "input_tokens": 2 * 93,
        "input_tokens_details": {"text_tokens": 2 * 93, "image_tokens": 0},
        "output_tokens": 2 * 64,
        "total_tokens": 2 * 157,
    }


def test_a_png_tells_how_it_came_about(address: str) -> None:
    prompt = 'ein Mensch, der im Gras liegt – "très" <b>\n草'
    body = {
        "prompt": prompt,
        "adapter": "lying",
        "num_inference_steps": 2,
        "seed": 9,
        "negative_prompt": "Öl",
    }
    raw = post(address, body, headers={"x-request-id": "mine-1"})
    assert raw.headers["x-request-id"] == "mine-1"
    with Image.open(io.BytesIO(base64.b64decode(raw.json()["data"][0]["b64_json"]))) as image:
        text = dict(image.text)  # type: ignore[attr-defined]  # of PngImageFile
    assert text["prompt"] == prompt
    assert text["negative_prompt"] == "Öl"
    assert text["seed"] == "9"
    assert text["request_id"] == "mine-1"
    for header in (
        "adapter",
        "adapter-version",
        "adapter-sha256",
        "route",
        "base-revision",
        "queue-ms",
        "denoise-ms",
    ):
        assert text[header.replace("-", "_")] == raw.headers[f"x-{header}"]


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_other_formats_tell_it_in_xmp_and_are_smaller_at_lower_quality(address: str, kind: str) -> None:
    prompt = "a <person> & \"a\" 'dog'\r\n草"
    sizes = []
    for compression in (100, 20):
        body = {"prompt": prompt, "adapter": "lying", "num_inference_steps": 2, "seed": 9}
        raw = post(address, {**body, "output_format": kind, "output_compression": compression})
        file = base64.b64decode(raw.json()["data"][0]["b64_json"])
        sizes.append(len(file))
        with Image.open(io.BytesIO(file)) as image:
            assert image.format == kind.upper()
            tree = ElementTree.fromstring(image.info["xmp"])
        found = {
            node.tag.removeprefix(f"{{{NAMESPACE}}}"): node.text
            for node in tree.iter()
            if NAMESPACE in node.tag
        }
        assert found["prompt"] == prompt
        assert found["adapter"] == "lying"
        assert found["route"] == "requested"
        assert found["seed"] == "9"
    assert sizes[1] < sizes[0]


def test_the_longest_prompts_fit_into_a_jpeg(address: str) -> None:
    body = {
        "prompt": "&" * 4000,
        "negative_prompt": "<" * 4000,
        "num_inference_steps": 1,
        "output_format": "jpeg",
    }
    assert post(address, body).status_code == 200


def test_headers_stay_headers_whatever_the_prompt(address: str) -> None:
    raw = post(address, {"prompt": "x\r\nset-cookie: a=b\r\n\r\nbody", "num_inference_steps": 1})
    assert raw.status_code == 200
    assert "set-cookie" not in raw.headers


def test_what_is_not_ascii_is_percent_encoded_in_headers() -> None:
    found = provenance_headers(
        Provenance(
            request_id="r",
            adapter="Grüße\r\nx: 100%",
            adapter_version="1",
            adapter_sha256=None,
            route="classifier",
            route_score=0.98765,
            base_revision="b",
            seed=2**63 - 1,
        )
    )
    assert found == {
        "x-adapter": "Gr%C3%BC%C3%9Fe%0D%0Ax: 100%25",
        "x-adapter-version": "1",
        "x-route": "classifier",
        "x-route-score": "0.9877",
        "x-base-revision": "b",
        "x-seed": "9223372036854775807",
    }


@pytest.mark.parametrize("offered", ["", "a b", "ü", "x" * 129, "a/b", 'a"b'])
def test_a_request_id_that_could_do_harm_is_replaced(address: str, offered: str) -> None:
    raw = post(
        address, {"prompt": LYING, "num_inference_steps": 1}, headers={"x-request-id": offered.encode()}
    )
    assert raw.headers["x-request-id"].startswith("req-")


def test_models_are_the_base_champions_and_challengers(address: str, world: World) -> None:
    client = openai_client(address)
    listed = {model.id: model for model in client.models.list()}
    assert sorted(listed) == ["broken", "embedded", "lying", "lying@2", "sitting"]
    lying = client.models.retrieve("lying")
    assert lying.model_dump() == listed["lying"].model_dump()
    assert lying.created == 1793491200
    extra = lying.model_extra or {}
    assert (extra["prompt"], extra["version"], extra["alias"], extra["mode"]) == (
        LYING,
        "1",
        "champion",
        "live",
    )
    assert extra["sha256"] == world.snapshot.adapters["lying"].champion.identity.sha256
    assert client.models.retrieve("lying@1").id == "lying@1"
    assert (client.models.retrieve("sitting").model_extra or {})["mode"] == "shadow"
    assert client.models.retrieve("embedded").owned_by == "base"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("nobody/here")
    assert error.value.code == "model_not_found"


def test_a_model_has_further_names_by_configuration(world: World) -> None:
    aliases = {
        "gpt-image-1": "auto",
        "dall-e-3": "embedded",
        "plain": "base",
        "better": "lying",
        "next": "lying@challenger",
        "gone": "nobody",
        "sitting": "lying@1",
    }
    with serving(create_app(world.service, IngressSettings(model_aliases=aliases))) as address:
        client = openai_client(address)
        listed = {model.id: model for model in client.models.list()}
        assert sorted(listed) == sorted(
            ["embedded", "broken", "lying", "lying@2", *aliases.keys() - {"gone", "next"}]
        )
        roots = {name: (model.model_extra or {})["root"] for name, model in listed.items()}
        assert roots == {name: name for name in roots} | {
            "gpt-image-1": "embedded", "dall-e-3": "embedded", "plain": "embedded", "better": "lying", "sitting": "lying@1",
        }  # fmt: skip
        assert client.models.retrieve("better").model_dump() == listed["better"].model_dump()
        for model, prompt, adapter, route in (
            ("gpt-image-1", LYING, "lying@1", "exact"),
            ("dall-e-3", GUARD, "base", "base"),
            ("plain", LYING, "base", "requested"),
            ("better", GUARD, "lying@1", "requested"),
            ("next", GUARD, "lying@2", "requested"),
            ("sitting", GUARD, "lying@1", "requested"),
            ("auto", LYING, "lying@1", "exact"),
        ):
            headers = drawn(address, prompt, model=model, num_inference_steps=1)[1]
            version = headers.get("x-adapter-version")
            assert headers["x-adapter"] + (f"@{version}" if version else "") == adapter, model
            assert headers["x-route"] == route, model
        named = drawn(address, model="gpt-image-1", adapter="base", num_inference_steps=1)[1]
        assert named["x-route"] == "requested"
        missing = post(address, {"prompt": LYING, "model": "gone"})
    assert missing.status_code == 404
    error = missing.json()["error"]
    assert error["param"] == "model"
    assert error["message"].startswith('model: "gone" stands for "nobody", and no adapter "nobody" is served')


def test_a_route_can_be_asked_for_without_drawing(address: str) -> None:
    exact = post(address, {"prompt": LYING}, path="/v1/route").json()
    assert (exact["route"], exact["adapter"], exact["alias"]) == ("exact", "lying", "champion")
    assert "lying" in exact["reason"]
    shadow = post(address, {"prompt": SITTING}, path="/v1/route").json()
    assert (shadow["route"], shadow["adapter"], set(shadow["shadow"])) == ("base", "base", {"sitting@1"})
