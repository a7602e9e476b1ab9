"""Every mistake of a request is answered with the documented error, and the next request is served."""

import logging
from typing import Any

import httpx2
import openai
import pytest

from serving.ingress.app import create_app
from serving.settings import IngressSettings
from tests.support.app_server import serving
from tests.support.ingress import LYING, World, openai_client, post

WRONG_TYPES: dict[str, list[Any]] = {
    "prompt": [1, True, ["a"], {"a": 1}],
    "model": [1, [], {}],
    "n": ["1", 1.5, True, [1]],
    "size": [64, [64, 64], True],
    "response_format": ["b64", 1],
    "output_format": ["gif", "svg", "PNG", 1],
    "output_compression": ["80", 80.5, True],
    "stream": ["true", 1, 0],
    "partial_images": ["1", True],
    "user": [1, ["a"]],
    "safety_identifier": [1],
    "background": ["white", 1],
    "quality": ["best", 1],
    "moderation": ["none", 1],
    "style": ["noir", 1],
    "complexity": ["some", 1],
    "negative_prompt": [1, ["a"]],
    "num_inference_steps": ["4", 4.5, True],
    "guidance_scale": ["4", True, [4]],
    "seed": ["1", 1.5, True],
    "adapter": [1, ["lying"], True],
    "timeout": ["1", True, [1]],
}
OUT_OF_RANGE: dict[str, list[Any]] = {
    "prompt": ["", " \n", "a\x00b", "a\x1bb", "x" * 4001, "x" * 5001],
    "model": ["x" * 257],
    "n": [0, -1, 11, 10**30],
    "size": [
        "", "64", "64x", "64x64x64", "-64x64", "0x64", "064x64", "64X64", "1e2x64", "63x64", "72x64", "8192x8192",
        "99999x99999", "100000x64", "٦٤x64", "64x64\n",
    ],
    "response_format": ["url"],
    "output_compression": [-1, 101, 10**30, 50],
    "partial_images": [-1, 4, 2],
    "user": ["x" * 257, "a\x00"],
    "background": ["transparent"],
    "quality": ["low", "high", "hd"],
    "negative_prompt": ["x" * 4001, "\x00"],
    "num_inference_steps": [0, -1, 101, 1001, 10**30],
    "guidance_scale": [-0.1, 100.1, 10**30, 10**400],
    "seed": [-1, 2**63, 10**30],
    "adapter": ["", "x" * 257],
    "timeout": [0, -1, 601, 86401, 10**400],
}  # fmt: skip


def refused(answer: httpx2.Response, status: int, code: str | None = None, param: str | None = None) -> str:
    """The message of an error that has the documented form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text
    assert len(answer.text) < 1000
    if code is not None:
        assert error["code"] == code, error
    if param is not None:
        assert error["param"] == param, error
        assert param in error["message"], error
    return str(error["message"])


@pytest.mark.parametrize("field", WRONG_TYPES)
def test_a_field_of_the_wrong_type_is_named(address: str, field: str) -> None:
    for value in WRONG_TYPES[field]:
        refused(post(address, {"prompt": LYING, field: value}), 400, "invalid_value", field)


@pytest.mark.parametrize("field", OUT_OF_RANGE)
def test_a_field_out_of_range_is_named(address: str, field: str) -> None:
    for value in OUT_OF_RANGE[field]:
        refused(post(address, {"prompt": LYING, field: value}), 400, "invalid_value", field)


def test_the_message_says_what_to_do(address: str) -> None:
    messages = {
        "size": ("72x64", "embedded draws sides that are multiples of 8 up to 64 pixels"),
        "response_format": ("url", "keeps no images to link to"),
        "num_inference_steps": (500, "at most 100"),
        "style": ("noir", "describe the style in the prompt"),
        "quality": ("hd", "choose num_inference_steps and size"),
        "background": ("transparent", "the base draws opaque images"),
        "seed": (-1, "leave it out for a random one"),
    }
    for field, (value, expected) in messages.items():
        assert expected in refused(post(address, {"prompt": LYING, field: value}), 400, param=field)


def test_fields_that_contradict_each_other_are_refused(address: str) -> None:
    for body, field in (
        ({"stream": True, "n": 2}, "n"),
        ({"partial_images": 1, "stream": False}, "partial_images"),
        ({"output_compression": 50}, "output_compression"),
        ({"output_compression": 50, "output_format": "png"}, "output_compression"),
        ({"seed": 2**63 - 1, "n": 2}, "seed"),
        ({"model": "lying", "adapter": "sitting"}, "adapter"),
    ):
        refused(post(address, {"prompt": LYING, **body}), 400, "invalid_value", field)
    assert post(address, {"prompt": LYING, "seed": 2**63 - 1, "num_inference_steps": 1}).status_code == 200


def test_an_unknown_or_a_missing_field_is_named(address: str) -> None:
    refused(post(address, {"prompt": LYING, "steps": 3}), 400, "unknown_parameter", "steps")
    for nothing in ({}, {"prompt": None}):
        refused(post(address, nothing), 400, "missing_required_parameter", "prompt")
    refused(post(address, {"prompt": LYING, "x" * 10_000: 3}), 400, "unknown_parameter")
    refused(post(address, {"prompt": LYING, "body": 3}), 400, "unknown_parameter", "body")
    refused(
        post(address, {"request_id": "a", "verdict": "meh"}, path="/v1/feedback"),
        400,
        "invalid_value",
        "verdict",
    )
    refused(post(address, {"prompt": LYING, "n": 1}, path="/v1/route"), 400, "unknown_parameter", "n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b'{"prompt": "a",}',
        b'{"prompt": "a"} {}',
        b"null",
        b"[]",
        b'"text"',
        b"3",
        b'{"prompt": "a", "guidance_scale": NaN}',
        b'{"prompt": "a", "guidance_scale": Infinity}',
        b'{"prompt": "a", "guidance_scale": -Infinity}',
        b'{"prompt": "a", "guidance_scale": 1e999}',
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "a", "prompt": "b"}',
        b'{"prompt": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"prompt": "a\xff"}',
        '{"prompt": "a"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"prompt": "a"}',
        b"[" * 60_000,
        b'{"prompt": ' + b'{"a":' * 9000 + b"1" + b"}" * 9001,
        b"\x00" * 100,
    ],
    ids=lambda content: content[:40].decode("latin-1"),
)
def test_a_body_that_is_no_json_object_is_refused(address: str, content: bytes) -> None:
    refused(post(address, None, content=content), 400)


def test_a_body_of_another_type_is_refused(address: str) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        answer = post(address, None, content=b'{"prompt": "a"}', headers={"content-type": kind})
        assert "application/json" in refused(answer, 400, "invalid_json")


def test_a_large_body_is_refused_whether_announced_or_not(address: str) -> None:
    body = b'{"prompt": "' + b"x" * 200_000 + b'"}'
    assert "65536" in refused(post(address, None, content=body), 413, "body_too_large")

    def parts() -> Any:
        for start in range(0, len(body), 10_000):
            yield body[start : start + 10_000]

    with httpx2.Client(verify=False) as client:
        headers = {"content-type": "application/json"}
        answer = client.post(f"{address}/v1/images/generations", content=parts(), headers=headers)
    refused(answer, 413, "body_too_large")


def test_unknown_things_are_404_and_405(address: str) -> None:
    for wanted in ("nobody", "lying@9", "@", "lying@", "nobody@1", "../etc", "\N{SNOWMAN}"):
        body = {"prompt": LYING, "adapter": wanted}
        refused(post(address, body), 404, "model_not_found", "adapter")
        refused(post(address, body, path="/v1/route"), 404, "model_not_found", "adapter")
    unknown = refused(post(address, {"prompt": LYING, "model": "lyin"}), 404, "model_not_found", "model")
    assert 'did you mean "lying"' in unknown and "adapter:" not in unknown
    refused(post(address, {}, path="/v1/chat/completions"), 404, "path_not_found")
    with httpx2.Client(base_url=address, verify=False) as client:
        refused(client.get("/nothing"), 404, "path_not_found")
        refused(client.get("/v1/images/generations"), 405, "method_not_allowed")
        answer = client.delete("/v1/models")
        refused(answer, 405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD"
        refused(client.patch("/v1/models"), 405)
        refused(client.get("/docs"), 404)


def test_a_prompt_that_the_operator_bounds_further_is_refused(world: World) -> None:
    settings = IngressSettings(max_prompt_chars=20, max_request_pixels=64 * 64 * 2, max_body_bytes=1024)
    with serving(create_app(world.service, settings)) as address:
        refused(post(address, {"prompt": "x" * 21}), 400, "invalid_value", "prompt")
        refused(post(address, {"prompt": "x" * 21}, path="/v1/route"), 400, "invalid_value", "prompt")
        refused(post(address, {"prompt": "x", "n": 3}), 400, "invalid_value", "n")
        refused(post(address, {"prompt": "x", "n": 3, "size": "64x64"}), 400, "invalid_value", "size")
        refused(post(address, {"prompt": "x", "model": "y" * 1100}), 413)
        assert post(address, {"prompt": "x", "n": 2, "num_inference_steps": 1}).status_code == 200


def test_an_adapter_that_cannot_be_had_is_503_and_nothing_of_the_server_is_told(address: str) -> None:
    answer = post(address, {"prompt": "two robots boxing"})
    message = refused(answer, 503, "adapter_unavailable")
    assert "not found" not in message
    assert int(answer.headers["retry-after"]) > 0


def test_a_missed_deadline_is_408_and_not_tried_again(address: str, caplog: pytest.LogCaptureFixture) -> None:
    answer = post(address, {"prompt": LYING, "timeout": 0.05, "num_inference_steps": 100})
    refused(answer, 408, "deadline_missed", "timeout")
    assert answer.headers["x-should-retry"] == "false"
    client = openai_client(address, max_retries=5)
    caplog.set_level(logging.INFO, "serving.access")
    with pytest.raises(openai.APIStatusError) as error:
        client.images.generate(
            prompt=LYING, model="embedded", extra_body={"timeout": 0.05, "num_inference_steps": 100}
        )
    assert error.value.status_code == 408
    assert len([record for record in caplog.records if record.name == "serving.access"]) == 1


def test_errors_become_the_clients_exceptions(address: str) -> None:
    client = openai_client(address)
    with pytest.raises(openai.BadRequestError) as bad:
        client.images.generate(prompt=LYING, model="embedded", n=11)
    assert (bad.value.param, bad.value.code, bad.value.type) == (
        "n",
        "invalid_value",
        "invalid_request_error",
    )
    with pytest.raises(openai.NotFoundError) as missing:
        client.images.generate(prompt=LYING, model="dall-e-3")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.InternalServerError) as down:
        client.images.generate(prompt="two robots boxing", model="embedded")
    assert (down.value.status_code, down.value.type) == (503, "server_error")
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.05).images.generate(
            prompt=LYING, model="embedded", extra_body={"num_inference_steps": 100}
        )
