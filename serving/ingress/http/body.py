"""Request bodies: limits of size and time, and strict JSON."""

import asyncio
import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import APIRouter, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import ClientDisconnect

from corrector.values import number
from serving.ingress.http.errors import ApiError, invalid, invalid_body, to_api_error
from serving.settings import IngressSettings


class StrictRequest(Request):
    """A request whose body is read within the limits of the app's IngressSettings."""

    async def body(self) -> bytes:
        """The body.

        Raises:
            ApiError: 413: it is too large; 408: it does not arrive in time.
        """
        settings: IngressSettings = self.app.state.context.settings
        if not hasattr(self, "_body"):
            try:
                async with asyncio.timeout(settings.body_seconds):
                    self._body = await self._bounded(settings.max_body_bytes)
            except TimeoutError:
                raise ApiError(
                    408,
                    f"the body did not arrive within {settings.body_seconds:g} s",
                    code="body_timeout",
                    headers={"x-should-retry": "false", "Connection": "close"},
                ) from None
            except ClientDisconnect as gone:
                raise to_api_error(gone) from None
        return self._body

    async def json(self) -> Any:
        """The body, as strict JSON.

        Raises:
            ApiError: 400, see `strict_json`.
        """
        return strict_json(await self.body())

    async def _bounded(self, limit: int) -> bytes:
        announced = self.headers.get("content-length", "")
        if announced.isdecimal() and int(announced[:20]) > limit:
            raise _too_large(limit)
        body = bytearray()
        async for part in self.stream():
            body += part
            if len(body) > limit:
                raise _too_large(limit)
        return bytes(body)


class StrictRoute(APIRoute):
    """A route that reads bodies as StrictRequest does, and explains the mistakes of its parameter `body`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler, with a StrictRequest."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            try:
                return await handle(StrictRequest(request.scope, request.receive))
            except RequestValidationError as error:
                # Every place begins with "body".
                mistakes = [{**mistake, "loc": mistake["loc"][1:]} for mistake in error.errors()]
                raise invalid_body(mistakes, get_type_hints(self.endpoint)["body"]) from None

        return strict


_bearer = HTTPBearer(auto_error=False, description="A key of `python -m serving.ingress.keys add NAME`.")


def api_router() -> APIRouter:
    """A router for paths below /v1. The schema says that they need a key; the middleware checks it before the body is read."""
    return APIRouter(prefix="/v1", route_class=StrictRoute, dependencies=[Security(_bearer)])


def strict_json(body: bytes) -> Any:
    """Parse JSON, and refuse input that parsers read differently. Whole-valued floats become whole numbers (8.0 is 8).

    Raises:
        ApiError: 400: not UTF-8, not JSON, nested too deeply; NaN, an infinity or a number beyond a double; a name twice;
            half of a surrogate pair.
    """
    try:
        value = json.loads(
            body.decode(), parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_unambiguous
        )
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        reason = "it is not UTF-8"
    except UnicodeEncodeError:
        reason = "it holds half of a surrogate pair"
    except RecursionError:
        reason = "it is nested too deeply"
    except json.JSONDecodeError as error:
        reason = f"{error.msg} at character {error.pos}"
    except ValueError as error:
        # For a number with thousands of digits, Python's message is about Python's settings.
        reason = str(error) if isinstance(error, _AmbiguousJson) else "a number has too many digits"
    else:
        return value
    raise invalid(f"the body is not valid JSON: {reason}", code="invalid_json")


class _AmbiguousJson(ValueError):
    """Parsers differ in how they read it."""


def _no_constant(name: str) -> None:
    raise _AmbiguousJson(f"{name} is no number")


def _finite(digits: str) -> int | float:
    value = float(digits)
    if not math.isfinite(value):
        raise _AmbiguousJson("a number is too large")
    return number(value)


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _AmbiguousJson("a name is given twice")
    return found


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413, f"the body may have {limit} bytes", code="body_too_large", headers={"Connection": "close"}
    )
