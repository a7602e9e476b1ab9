"""Errors in the form of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from corrector.errors import UserError
from serving.engine.request import AdapterUnavailable, DeadlineMissed, EngineFailure, Overloaded
from serving.ingress.http.error_messages import explained, unknown_field

_TYPES = {401: "authentication_error", 403: "permission_error", 408: "timeout_error", 429: "rate_limit_error"}
CLIENT_GONE = 499
"""Status in the access log of a request whose client went away."""
_SHOWN_CHARS = 64


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="For people: the thing, the place and the remedy.")
    type: str = Field(description="The kind of error, such as invalid_request_error.")
    param: str | None = Field(description="The field that it is about.")
    code: str | None = Field(description="For programs; does not change between releases.")


class ErrorBody(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorDetail


class ApiError(HTTPException):
    """An answer that is an error; `retry_after` in seconds."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        if retry_after is not None:
            headers = {"Retry-After": str(max(1, math.ceil(retry_after)))}
        super().__init__(status, message, headers)
        self.code = code
        self.param = param

    def body(self) -> dict[str, Any]:
        kind = _TYPES.get(
            self.status_code, "invalid_request_error" if self.status_code < 500 else "server_error"
        )
        detail = ErrorDetail(message=self.detail, type=kind, param=self.param, code=self.code)
        return ErrorBody(error=detail).model_dump()

    def response(self) -> Response:
        return JSONResponse(self.body(), self.status_code, self.headers)


def invalid(message: str, *, param: str | None = None, code: str = "invalid_value") -> ApiError:
    """An answer of status 400 for a request that is not valid."""
    return ApiError(400, message, code=code, param=param)


def invalid_body(mistakes: Sequence[Mapping[str, Any]], model: type[BaseModel]) -> ApiError:
    """An answer for pydantic's errors in a body of this model; of several mistakes, it says one.

    Unknown fields come first, since a misspelt field is missing, too; the others follow in the order of the schema.
    """
    mistake = min(mistakes, key=lambda each: each["type"] != "extra_forbidden")
    if not mistake["loc"]:
        return invalid(
            "the body must be one JSON object, with Content-Type: application/json", code="invalid_json"
        )
    param = ".".join(map(str, mistake["loc"]))[:_SHOWN_CHARS]
    match mistake["type"]:
        case "extra_forbidden":
            return invalid(unknown_field(param, model.model_fields), param=param, code="unknown_parameter")
        case "missing":
            return invalid(f"{param} is missing", param=param, code="missing_required_parameter")
    return invalid(f"{param}: {explained(mistake, model)}", param=param)


def to_api_error(error: BaseException) -> ApiError:
    """The answer for an error of routing or drawing; it does not contain the causes of server errors."""
    match error:
        case ApiError():
            return error
        case Overloaded():
            return ApiError(429, str(error), code="overloaded", retry_after=min(60.0, error.retry_after))
        case DeadlineMissed() | TimeoutError():
            # A second attempt of the client would take as long again.
            return ApiError(
                408,
                "not done within `timeout` seconds; give more, or try when there is less to do",
                code="deadline_missed",
                param="timeout",
                headers={"x-should-retry": "false"},
            )
        case AdapterUnavailable():
            return ApiError(
                503,
                "the adapter cannot be had at the moment; try again, or ask for another with `adapter`",
                code="adapter_unavailable",
                retry_after=5,
            )
        case EngineFailure():
            message = "the image could not be drawn; try again"
            return ApiError(503, message, code="engine_failure", retry_after=1)
        case ClientDisconnect():
            return ApiError(CLIENT_GONE, "the client went away", code="client_gone")
        case UserError():
            return invalid(str(error))
    return ApiError(500, "the server failed; its log has the request's id", code="internal_error")


def install(app: FastAPI) -> None:
    """Answer FastAPI's own errors in the same form."""

    async def answered(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        answer = _of_http(error)
        request.state.context.code = answer.code
        return answer.response()

    app.add_exception_handler(HTTPException, answered)


def _of_http(error: HTTPException) -> ApiError:
    if isinstance(error, ApiError):
        return error
    if error.status_code == 404:
        return ApiError(404, "there is no such path; /openapi.json lists them", code="path_not_found")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "").replace("GET", "GET, HEAD")
        return ApiError(
            405,
            f"expected {allowed}",
            code="method_not_allowed",
            headers={"Allow": allowed} if allowed else None,
        )
    return ApiError(error.status_code, str(error.detail), code="http_error", headers=error.headers)
