"""Requests and answers as pydantic models. Names and defaults are OpenAI's where OpenAI has the field."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from serving.ingress.http.error_messages import EXPECTED, REMEDY

OutputFormat = Literal["png", "jpeg", "webp"]

MAX_IMAGES = 10
MAX_SEED = 2**63 - 1
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_EXAMPLE = "a person lying on the grass"


def _printable(text: str) -> str:
    if found := _CONTROL.search(text):
        raise ValueError(f"holds a control character, U+{ord(found.group()):04X}; remove it")
    return text


Text = Annotated[str, AfterValidator(_printable)]


def _otherwise(remedy: str) -> Any:
    """An optional field whose errors end with this remedy."""
    return Field(default=None, json_schema_extra={REMEDY: remedy})


class _Strict(BaseModel):
    """Fields have the JSON type that is written here, and there are no others; one that is null counts as left out."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return {
            name: value for name, value in body.items() if value is not None or name not in cls.model_fields
        }


class ImagesRequest(_Strict):
    """OpenAI's `POST /v1/images/generations`, and what a diffusion model takes beyond it. A field that is null counts as left
    out. A field of OpenAI's that asks for something that this server has no choice of is ignored, and named in the
    header x-ignored-parameters; a value that asks for another image than this server draws is refused.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": _EXAMPLE},
                {"prompt": _EXAMPLE, "n": 2, "seed": 7, "output_format": "webp", "output_compression": 80},
                {"prompt": _EXAMPLE, "adapter": "base", "seed": 7},
            ]
        }
    )

    prompt: Text = Field(min_length=1, max_length=5000)
    """What the images shall show."""
    model: str | None = Field(default=None, max_length=256)
    """The base's name: `adapter` decides (the default); or an adapter, as `adapter` has it; or another name that the
    server's configuration gives one of them, such as gpt-image-1. GET /v1/models lists them."""
    n: int | None = Field(default=None, ge=1, le=MAX_IMAGES)
    """Images, each with a seed of its own. Default: 1."""
    size: str | None = Field(
        default=None,
        pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$",
        json_schema_extra={EXPECTED: "WIDTHxHEIGHT in pixels, such as 512x512, or auto"},
    )
    """WIDTHxHEIGHT in pixels, or auto: the base's own, the default."""
    response_format: Literal["b64_json"] | None = _otherwise(
        "this server keeps no images to link to; leave it out"
    )
    """b64_json, the default. url is refused: this server keeps no images."""
    output_format: OutputFormat | None = None
    """Default: png."""
    output_compression: int | None = Field(default=None, ge=0, le=100)
    """Quality of jpeg and webp in percent. Default: 100."""
    stream: bool | None = None
    """Answer with server-sent events; `n` must be 1. Default: false."""
    partial_images: int | None = Field(default=None, ge=0, le=3)
    """With `stream`: how often the image is shown on the way. Default: 0."""
    user: Text | None = Field(default=None, max_length=256)
    """Your end user: waiting requests of one key are served user by user, and a user stays with the version of
    an adapter that a canary gave them."""
    safety_identifier: Text | None = Field(default=None, max_length=256)
    """OpenAI's newer name of `user`; where both are given, it counts."""
    background: Literal["auto", "opaque"] | None = _otherwise("the base draws opaque images; leave it out")
    """auto or opaque, which is the same here; transparent is refused."""
    quality: Literal["auto", "standard"] | None = _otherwise(
        "leave it out, and choose num_inference_steps and size"
    )
    """auto: the server's own; standard is ignored. Any other level is refused: there are none here, and
    num_inference_steps says what you mean."""
    moderation: Literal["auto", "low"] | None = None
    """auto: the operator sets the filter; low is ignored."""
    style: Literal["vivid", "natural"] | None = _otherwise(
        "leave it out, and describe the style in the prompt"
    )
    """Ignored: the prompt says the style."""
    complexity: Literal["low", "medium", "high"] | None = None
    """Ignored: nothing is planned before an image is drawn."""
    negative_prompt: Text | None = Field(default=None, max_length=5000)
    """What to steer away from; read where guidance_scale is above 1."""
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    """Denoising steps. Default: the base's."""
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    """Classifier-free guidance; at 1 and below there is none. Default: the base's."""
    seed: int | None = Field(
        default=None, ge=0, le=MAX_SEED, json_schema_extra={REMEDY: "leave it out for a random one"}
    )
    """Of the first image; the others have seed + 1, seed + 2, … Default: drawn at random below 2**32. The same
    request with the same seed and adapter version gives the same image."""
    adapter: str | None = Field(default=None, min_length=1, max_length=256)
    """auto, the default: the router decides by the prompt; base: none; NAME: that adapter's champion;
    NAME@VERSION: that version."""
    timeout: float | None = Field(default=None, gt=0, le=86400)
    """Seconds after which nobody waits for the images any more: drawing stops, and the answer is 408. The openai
    client's own `timeout` bounds its waiting only; pass this one in `extra_body`."""


class ImageData(BaseModel):
    """One image."""

    b64_json: str = Field(description="The file, base64.")
    seed: int = Field(description="That it was drawn with.")


class UsageInputDetails(BaseModel):
    """Of the input."""

    text_tokens: int
    image_tokens: int


class Usage(BaseModel):
    """What the transformer read and drew, in its own tokens."""

    input_tokens: int = Field(
        description="Text tokens, padding included, of all images: the same for every prompt."
    )
    input_tokens_details: UsageInputDetails
    output_tokens: int = Field(description="Patches of the latent image, of all images.")
    total_tokens: int


class Provenance(BaseModel):
    """How an image came about; also in the headers of the answer and in the metadata of the image."""

    request_id: str
    adapter: str = Field(description='"base" where there is none.')
    adapter_version: str | None
    adapter_sha256: str | None = Field(description="Of the adapter's weights.")
    route: str = Field(description="requested, exact, paraphrase, classifier or base.")
    route_score: float | None = Field(
        description="Probability that the prompt is the adapter's; null if not asked."
    )
    base_revision: str
    seed: int
    queue_ms: int | None = Field(default=None, description="Until the first denoising step.")
    denoise_ms: int | None = Field(default=None, description="From the first denoising step to the last.")


class ImagesResponse(BaseModel):
    """The images."""

    created: int = Field(description="Seconds since 1970.")
    background: Literal["opaque"] = "opaque"
    data: list[ImageData]
    output_format: OutputFormat
    size: str
    usage: Usage
    provenance: Provenance = Field(
        description="With the seed of the first image and the longest of the times."
    )


class _ImageEvent(BaseModel):
    type: str
    b64_json: str
    background: Literal["opaque"] = "opaque"
    created_at: int
    output_format: OutputFormat
    quality: Literal["auto"] = "auto"
    size: str


class PartialImage(_ImageEvent):
    """Event: an image on the way."""

    type: Literal["image_generation.partial_image"] = "image_generation.partial_image"
    partial_image_index: int = Field(description="From 0.")


class CompletedImage(_ImageEvent):
    """Event: the image."""

    type: Literal["image_generation.completed"] = "image_generation.completed"
    usage: Usage
    provenance: Provenance


class Model(BaseModel):
    """The base, or a version of an adapter."""

    id: str = Field(description="What `model` takes.")
    object: Literal["model"] = "model"
    created: int = Field(description="Seconds since 1970; 0 for the base.")
    owned_by: Literal["base", "adapter"]
    root: str = Field(
        description="The model that the id stands for: another one where the configuration gives it this name too."
    )
    prompt: str | None = Field(description="That the adapter corrects.")
    version: str = Field(description="Of the adapter; the base's revision.")
    sha256: str | None = Field(description="Of the adapter's weights.")
    alias: Literal["champion", "challenger"] | None = Field(description="That points at the version.")
    mode: Literal["live", "shadow"] | None = Field(description="shadow: scored, and not routed to.")


class ModelList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Model]


class RouteRequest(_Strict):
    """A prompt to be routed, and not drawn."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": _EXAMPLE}]})

    prompt: Text = Field(min_length=1, max_length=5000)
    adapter: str | None = Field(default=None, min_length=1, max_length=256)
    """As of an image."""
    user: Text | None = Field(default=None, max_length=256)
    """As of an image."""


class RouteResponse(BaseModel):
    """Where an image's prompt would go, and why."""

    route: str = Field(description="requested, exact, paraphrase, classifier or base.")
    adapter: str = Field(description='"base" where there is none.')
    adapter_version: str | None
    adapter_sha256: str | None
    alias: Literal["champion", "challenger"] | None
    score: float | None
    threshold: float | None = Field(description="The smallest score that is accepted.")
    reason: str
    shadow: list[str] = Field(
        description="Adapters in shadow mode that would have been chosen, NAME@VERSION."
    )


class FeedbackRequest(_Strict):
    """A verdict on a request's images."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"request_id": "req-0123456789abcdef", "verdict": "bad", "note": "three legs"}]
        }
    )

    request_id: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,128}$",
        json_schema_extra={EXPECTED: "the header x-request-id of the answer with the images"},
    )
    """x-request-id of the images' answer, drawn with this key."""
    verdict: Literal["good", "bad"]
    note: Text | None = Field(default=None, max_length=2000)


class FeedbackResponse(BaseModel):
    """It was stored."""

    request_id: str
    verdict: Literal["good", "bad"]
