"""The OpenAPI schema, beyond what FastAPI derives from the routes."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from serving.ingress.http.errors import ApiError, ErrorBody
from serving.ingress.http.headers import DESCRIPTIONS, IGNORED
from serving.ingress.http.schema import CompletedImage, PartialImage

Responses = dict[int | str, dict[str, Any]]

_TITLE = "Corrected images"
_DESCRIPTION = """OpenAI's images API over one Stable Diffusion 3 and many corrections: a prompt with an approved correction is
drawn through its adapter, every other by the base. The official openai clients work as they are; fields beyond OpenAI's go
into `extra_body`. HEAD is answered wherever GET is.
Every answer has the header x-request-id: the client's own, where it sent one of letters, digits, dots,
dashes and underscores."""

_ERRORS = {
    400: ("The request is wrong", "prompt is missing", "prompt", "missing_required_parameter"),
    401: ("No valid API key", "the API key is not valid", None, "invalid_api_key"),
    403: ("The API key may not do this", 'the API key "team" is disabled', None, "key_disabled"),
    404: ("There is no such thing", 'adapter: no adapter "lying" is served', "adapter", "model_not_found"),
    408: ("It took too long", "not done within `timeout` seconds", "timeout", "deadline_missed"),
    413: ("The body is too large", "the body may have 65536 bytes", None, "body_too_large"),
    429: ("Too much at once", "256 images wait already; try again later", None, "overloaded"),
    500: ("The server failed", "the server failed; its log has the request's id", None, "internal_error"),
    503: (
        "It cannot be drawn at the moment",
        "the image could not be drawn; try again",
        None,
        "engine_failure",
    ),
}
_HEADERS = {
    408: {"x-should-retry": "false: the client should not try again."},
    429: {"Retry-After": "Seconds after which to try again."},
    503: {"Retry-After": "Seconds after which to try again."},
}


def errors(*statuses: int) -> Responses:
    """Descriptions of error answers with an example each; any other error has the same form."""
    described: Responses = {status: _error(status) for status in statuses}
    described["default"] = {"description": "Any other error", "model": ErrorBody}
    return described


def _error(status: int) -> dict[str, Any]:
    description, message, param, code = _ERRORS[status]
    example = ApiError(status, message, param=param, code=code).body()
    return {
        "description": description,
        "model": ErrorBody,
        "content": {"application/json": {"example": example}},
        "headers": _headers(_HEADERS.get(status, {})),
    }


def _headers(descriptions: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in descriptions.items()}


STREAMED_IMAGES: dict[str, Any] = {
    "description": "The images, or with `stream` the events of one",
    "headers": _headers(
        DESCRIPTIONS | {IGNORED: "Fields of the request that changed nothing, as quality: standard."}
    ),
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "string",
                "description": "Server-sent events `image_generation.partial_image` with a PartialImage, "
                "`image_generation.completed` with a CompletedImage, and `error` with an ErrorBody as data.",
            }
        }
    },
}

READY_RESPONSES: Responses = {
    200: {
        "description": "They can",
        "content": {
            "application/json": {
                "schema": {"type": "object"},
                "example": {
                    "ready": True,
                    "engine": {"waiting": 0, "drawing": 2},
                    "registry": {"ok": True, "age_seconds": 1.4, "snapshot": 3},
                    "refused": 0,
                },
            }
        },
    },
    503: {"description": "They cannot", "content": {"application/json": {"schema": {"type": "object"}}}},
}


def install(app: FastAPI) -> None:
    """Add the title, and the events of streams as components."""

    def schema() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=_TITLE, version=app.version, description=_DESCRIPTION, routes=app.routes)
            _, events = models_json_schema(
                [(PartialImage, "serialization"), (CompletedImage, "serialization")],
                ref_template="#/components/schemas/{model}",
            )
            made["components"]["schemas"] |= events["$defs"]
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = schema  # type: ignore[method-assign]  # FastAPI's documented way of extending its schema
