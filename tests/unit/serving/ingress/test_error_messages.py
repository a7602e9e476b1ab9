"""Every mistake in a body is said in our words: what was expected, what was found, what to do."""

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from serving.ingress.http.errors import ApiError, invalid_body
from serving.ingress.http.schema import FeedbackRequest, ImagesRequest, RouteRequest

BODIES: dict[type[BaseModel], dict[str, Any]] = {
    ImagesRequest: {"prompt": "a cat"},
    RouteRequest: {"prompt": "a cat"},
    FeedbackRequest: {"request_id": "r", "verdict": "good"},
}
THEIRS = (
    "should",
    "Input",
    "pydantic",
    "Value error",
    "pattern",
    "literal",
    "[A-Za-z",
    "^(",
    "\\",
    "NoneType",
)
"""What pydantic's messages and regular expressions have, and ours have not."""


def refusal(body: Any, model: type[BaseModel] = ImagesRequest) -> ApiError:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(body)
    return invalid_body(caught.value.errors(), model)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": 1}, "prompt: expected text, found 1"),
        ({"prompt": ["a"]}, "prompt: expected text, found a list"),
        ({"prompt": ""}, "prompt: expected text that is not empty"),
        ({"prompt": "x" * 5001}, "prompt: expected at most 5000 characters, found 5001"),
        ({"prompt": "a\x00"}, "prompt: holds a control character, U+0000; remove it"),
        ({"n": 1.5}, "n: expected a whole number from 1 to 10, found 1.5"),
        ({"n": "2"}, 'n: expected a whole number from 1 to 10, found "2"; write it without quotes'),
        ({"n": 11}, "n: expected a whole number from 1 to 10, found 11"),
        ({"n": 10**30}, "n: expected a whole number from 1 to 10, found a number of over 20 digits"),
        (
            {"seed": -1},
            "seed: expected a whole number from 0 to 9223372036854775807, found -1; leave it out for a random one",
        ),
        ({"guidance_scale": "4"}, 'guidance_scale: expected a number from 0 to 100, found "4"; write it without quotes'),
        ({"guidance_scale": 10**400}, "guidance_scale: expected a number from 0 to 100, found a number of over 20 digits"),
        ({"timeout": 0}, "timeout: expected a number above 0 and at most 86400, found 0"),
        ({"stream": 1}, "stream: expected true or false, found 1"),
        ({"stream": "True"}, 'stream: expected true or false, found "True"; write it without quotes'),
        ({"size": 64}, "size: expected WIDTHxHEIGHT in pixels, such as 512x512, or auto, found 64"),
        (
            {"size": "64X64"},
            'size: expected WIDTHxHEIGHT in pixels, such as 512x512, or auto, found "64X64"; did you mean "64x64"?',
        ),
        ({"size": "big"}, 'size: expected WIDTHxHEIGHT in pixels, such as 512x512, or auto, found "big"'),
        ({"output_format": "jpg"}, 'output_format: expected "png", "jpeg" or "webp", found "jpg"; did you mean "jpeg"?'),
        ({"output_format": "svg"}, 'output_format: expected "png", "jpeg" or "webp", found "svg"'),
        (
            {"response_format": "url"},
            'response_format: expected "b64_json", found "url"; this server keeps no images to link to; leave it out',
        ),
        (
            {"quality": "hd"},
            'quality: expected "auto" or "standard", found "hd"; leave it out, and choose num_inference_steps and size',
        ),
        (
            {"background": "transparent"},
            'background: expected "auto" or "opaque", found "transparent"; the base draws opaque images; leave it out',
        ),
    ],
)  # fmt: skip
def test_a_wrong_value_is_explained(fields: dict[str, Any], message: str) -> None:
    answer = refusal({"prompt": "a cat", **fields})
    assert (answer.detail, answer.code, answer.param) == (message, "invalid_value", next(iter(fields)))


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        *((name, "num_inference_steps") for name in ("steps", "sampling_steps", "numInferenceSteps", "num_inference_step")),
        *((name, "guidance_scale") for name in ("cfg_scale", "cfg", "guidance", "CFG Scale", "guidence_scale")),
        *((name, "size, WIDTHxHEIGHT in pixels") for name in ("width", "height", "resolution", "image_size")),
        *((name, "n") for name in ("num_images", "num_images_per_prompt", "batch_size", "num_outputs")),
        ("negativePrompt", "negative_prompt"), ("random_seed", "seed"), ("lora", "adapter"), ("promt", "prompt"),
        ("model_id", "model"), ("image_format", "output_format"), ("output_quality", "output_compression"),
    ],
)  # fmt: skip
def test_a_field_by_another_name_is_recognised(sent: str, meant: str) -> None:
    answer = refusal({sent: 3})  # the prompt is missing, too
    assert (answer.code, answer.param) == ("unknown_parameter", sent)
    assert answer.detail.endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize(
    ("model", "sent", "message"),
    [
        (ImagesRequest, "body", "unknown field: body; leave it out (/openapi.json lists the fields)"),
        (ImagesRequest, "mask", "unknown field: mask; this server draws from a prompt alone"),
        (ImagesRequest, "sampler", "unknown field: sampler; leave it out (/openapi.json lists the fields)"),
        (ImagesRequest, "a b\n", 'unknown field: "a b\\n"; leave it out (/openapi.json lists the fields)'),
        (RouteRequest, "steps", "unknown field: steps; expected prompt, adapter, user"),
        (FeedbackRequest, "requestId", "unknown field: requestId; did you mean request_id?"),
    ],
)
def test_an_unknown_field_has_a_remedy(model: type[BaseModel], sent: str, message: str) -> None:
    assert refusal({**BODIES[model], sent: 3}, model).detail == message


def test_what_is_missing_is_named_and_a_body_is_an_object() -> None:
    for nothing in ({}, {"prompt": None, "n": None}):
        answer = refusal(nothing)
        assert (answer.detail, answer.param) == ("prompt is missing", "prompt")
        assert answer.code == "missing_required_parameter"
    others: tuple[Any, ...] = ([], None, "text", 3)
    for body in others:
        assert refusal(body).detail.startswith("the body must be one JSON object")
    found = refusal({"request_id": "a b", "verdict": "good"}, FeedbackRequest).detail
    assert found == 'request_id: expected the header x-request-id of the answer with the images, found "a b"'


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("model", BODIES)
@settings(deadline=None, derandomize=True, database=None, max_examples=40)
@given(value=VALUES)
@example(value=10**400)
@example(value=[[]])
@example(value="\ud7ff")
def test_no_value_of_any_field_gets_the_librarys_words(model: type[BaseModel], value: Any) -> None:
    for field in (*model.model_fields, "unknown_thing"):
        try:
            model.model_validate({**BODIES[model], field: value})
        except ValidationError as error:
            answer = invalid_body(error.errors(), model)
            said = answer.detail.replace(repr(value)[1:-1], "") if isinstance(value, str) else answer.detail
            assert field in answer.detail and answer.param == field
            assert not [word for word in THEIRS if word in said.partition(", found")[0]], answer.detail
            assert answer.code in ("invalid_value", "unknown_parameter", "missing_required_parameter")
