"""build_app: the page of a survey and the calls that it makes. What is sent names sides, and never the arms behind them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from corrector.preference.links import Links
from corrector.preference.store import StoreError, VoteStore
from corrector.preference.survey_folder import IMAGES_FOLDER
from corrector.preference.votes import (
    ConflictingVote,
    Rater,
    SurveyClosed,
    TooManyVotes,
    UnknownView,
    VoteRefused,
)
from serving.survey.headers import SafeHeaders
from serving.survey.page import closed_page, message_page, survey_page
from serving.survey.rating import Rating

logger = logging.getLogger(__name__)

_MAX_BODY = 4096
_BODY_SECONDS = 10.0
_RETRY_SECONDS = 2
_REFUSALS: dict[type[VoteRefused], tuple[int, str]] = {
    SurveyClosed: (410, "closed"),
    UnknownView: (404, "unknown_view"),
    ConflictingVote: (409, "conflict"),
    TooManyVotes: (429, "too_many_votes"),
}


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    browser: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Drawn once by the browser, so that a shared link is noticed."""


class ViewRequest(_Body):
    """Asks for a pair: the rater's next one, or one that the rater has seen."""

    number: int | None = Field(default=None, ge=0, le=1_000_000)


class VoteRequest(_Body):
    """Answers to all questions about a view."""

    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    """Drawn by the page; the same when it sends the vote again."""
    view: str = Field(pattern=r"^[0-9a-f]{16}$")
    answers: dict[str, Literal["left", "right", "both bad"]]
    seconds: float = Field(ge=0, allow_inf_nan=False)


_T = TypeVar("_T", bound=_Body)


def build_app(folder: Path, store: VoteStore) -> FastAPI:
    """The survey in `folder`, whose votes `store` keeps. A rater's page is at `/TOKEN/`.

    Raises:
        UserError: There is no secret for links.
    """
    survey = store.survey
    links = Links(folder, survey.id)
    images = {name for pair in survey.pairs for name in (pair.a, pair.b)}
    rating = Rating(store)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    async def rater_of(token: str) -> Rater:
        link = links.link(token)
        rater = None if link is None else await run_in_threadpool(store.rater_of_link, link)
        if rater is None:
            raise HTTPException(404, "there is no such link")
        return rater

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/{token}")
    @app.get("/{token}/")
    async def page(token: str) -> Response:
        try:
            await rater_of(token)
            closed = await run_in_threadpool(store.closed)
        except HTTPException as error:
            return message_page(
                "This link is not valid", "Ask whoever sent it for a new one.", error.status_code
            )
        except StoreError:
            closed = None  # the page itself tries again
        return closed_page(survey) if closed is not None else survey_page(survey)

    @app.post("/{token}/view")
    async def view(token: str, request: Request) -> Response:
        rater, body = await rater_of(token), await _read(request, ViewRequest)
        shown = await run_in_threadpool(rating.view, rater.pseudonym, body.browser, body.number)
        return JSONResponse(shown)

    @app.post("/{token}/votes")
    async def vote(token: str, request: Request) -> Response:
        rater, body = await rater_of(token), await _read(request, VoteRequest)
        if set(body.answers) != set(survey.questions):
            raise HTTPException(400, f"expected answers to {', '.join(survey.questions)}")
        await run_in_threadpool(
            store.vote,
            rater.pseudonym,
            vote_id=body.id,
            view_id=body.view,
            answers=body.answers,
            seconds=body.seconds,
        )
        return JSONResponse({"stored": body.id})

    @app.get("/{token}/images/{name}.png")
    async def image(token: str, name: str) -> Response:
        if links.link(token) is None or name not in images:
            raise HTTPException(404, "there is no such image")
        return await run_in_threadpool(_image, folder / IMAGES_FOLDER / f"{name}.png")

    _answer_errors(app)
    app.add_middleware(SafeHeaders)
    return app


def _image(path: Path) -> Response:
    """No header has a time or a tag: the files of one arm may be older."""
    try:
        content = path.read_bytes()
    except OSError as error:
        logger.warning("%s", error)
        raise HTTPException(503, "the image cannot be read") from error
    headers = {"cache-control": "private, max-age=86400, immutable"}
    return Response(content, media_type="image/png", headers=headers)


async def _read(request: Request, model: type[_T]) -> _T:
    """The body, within limits of size and time."""
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > _MAX_BODY:
                    raise HTTPException(413, f"a body may have {_MAX_BODY} bytes", {"connection": "close"})
        return model.model_validate_json(bytes(body))
    except TimeoutError:
        raise HTTPException(408, "the body did not arrive", {"connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(400, "the client went away") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise HTTPException(400, f"{place}: {first['msg']}") from None


def _answer_errors(app: FastAPI) -> None:
    """Every error is `{"error": {"code", "message"}}`; the page keeps a vote whose answer has status 503."""

    async def refused(request: Request, error: Any) -> Response:
        return _error(*_REFUSALS[type(error)], str(error))

    async def not_stored(request: Request, error: Exception) -> Response:
        logger.warning("%s", error)
        answer = _error(503, "not_stored", "the votes' database does not answer; try again")
        answer.headers["retry-after"] = str(_RETRY_SECONDS)
        return answer

    async def failed(request: Request, error: Any) -> Response:
        return _error(error.status_code, "http_error", str(error.detail), error.headers)

    handlers: dict[type[Exception], Callable[[Request, Any], Awaitable[Response]]] = {
        VoteRefused: refused,
        StoreError: not_stored,
        StarletteHTTPException: failed,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _error(status: int, code: str, message: str, headers: Any = None) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)
