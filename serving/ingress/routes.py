"""The paths of the API."""

from __future__ import annotations

import time
from concurrent.futures import Executor
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import cast

from fastapi import APIRouter, Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from serving.catalogue.snapshot import ServedAdapter, ServedVersion
from serving.ingress.body import StrictRoute
from serving.ingress.connection import EventStream, while_connected
from serving.ingress.drawing import Drawing, Picture, routing_user
from serving.ingress.errors import ApiError
from serving.ingress.feedback import MAX_VERDICTS
from serving.ingress.headers import provenance_headers
from serving.ingress.limits import Limits
from serving.ingress.middleware import Exchange
from serving.ingress.openapi import READY_RESPONSES, STREAMED_IMAGES, errors
from serving.ingress.plan import check_prompt, plan_images
from serving.ingress.schema import (
    FeedbackRequest,
    FeedbackResponse,
    ImageData,
    ImagesRequest,
    ImagesResponse,
    Model,
    ModelList,
    RouteRequest,
    RouteResponse,
)
from serving.ingress.service import BaseInfo, Observer, Service, Verdict
from serving.ingress.settings import IngressSettings
from serving.ingress.streaming import image_events


@dataclass(frozen=True)
class Context:
    """What the paths share; in the app's state as `context`."""

    service: Service
    settings: IngressSettings
    limits: Limits
    observer: Observer
    executor: Executor


_bearer = HTTPBearer(auto_error=False, description="A key of `python -m serving.ingress.keys add NAME`.")
# The middleware checks the key, before a body is read; here it is declared for the schema.
api = APIRouter(prefix="/v1", route_class=StrictRoute, dependencies=[Security(_bearer)])
health = APIRouter(tags=["health"])


@api.post(
    "/images/generations",
    operation_id="createImage",
    summary="Draw images",
    tags=["images"],
    response_model=ImagesResponse,
    responses={200: STREAMED_IMAGES, **errors(400, 401, 403, 404, 408, 413, 429, 500, 503)},
)
async def generate(body: ImagesRequest, request: Request) -> Response:
    """Draws images of a prompt, through the adapter that corrects it where there is one. With `stream`, answers with
    server-sent events `image_generation.partial_image` and `image_generation.completed`, or `error`.
    """
    context, exchange = _context(request), _exchange(request)
    plan = plan_images(body, context.service.base, context.settings)
    drawing = Drawing(plan, exchange, context.service, context.settings, context.observer, context.executor)
    if plan.stream:
        return await _streamed(drawing, exchange, context, request)
    with context.limits.images(exchange.caller, len(plan.seeds)):
        pictures = await while_connected(request.receive, _drawn(drawing))
    provenance = pictures[0].provenance.model_copy(
        update={
            "queue_ms": max(picture.provenance.queue_ms or 0 for picture in pictures),
            "denoise_ms": max(picture.provenance.denoise_ms or 0 for picture in pictures),
        }
    )
    answer = ImagesResponse(
        created=int(time.time()),
        data=[ImageData(b64_json=picture.file, seed=picture.provenance.seed) for picture in pictures],
        output_format=plan.output_format,
        size=plan.size,
        usage=drawing.usage(),
        provenance=provenance,
    )
    return _json(answer, provenance_headers(provenance))


@api.get(
    "/models",
    operation_id="listModels",
    summary="List the base and the adapters",
    tags=["models"],
    response_model=ModelList,
    responses=errors(401, 403, 429, 500),
)
async def list_models(request: Request) -> ModelList:
    """The base, the champion of every adapter under the adapter's name, and challengers as NAME@VERSION."""
    service = _context(request).service
    adapters = sorted(await service.adapters(), key=lambda adapter: adapter.name)
    return ModelList(
        data=[_base_model(service.base), *(model for each in adapters for model in _models(each))]
    )


@api.get(
    "/models/{model:path}",
    operation_id="retrieveModel",
    summary="Look up the base or an adapter",
    tags=["models"],
    response_model=Model,
    responses=errors(401, 403, 404, 429, 500),
)
async def retrieve_model(model: str, request: Request) -> Model:
    """By an id of the list, or by NAME@VERSION of a champion."""
    service = _context(request).service
    if model == service.base.name:
        return _base_model(service.base)
    for adapter in await service.adapters():
        for found in _models(adapter):
            if model in (found.id, f"{adapter.name}@{found.version}"):
                return found.model_copy(update={"id": model})
    raise ApiError(
        404, "there is no such model; GET /v1/models lists them", code="model_not_found", param="model"
    )


@api.post(
    "/route",
    operation_id="routePrompt",
    summary="Say where a prompt would go",
    tags=["images"],
    response_model=RouteResponse,
    responses=errors(400, 401, 403, 404, 408, 413, 429, 500, 503),
)
async def route(body: RouteRequest, request: Request) -> RouteResponse:
    """The adapter that an image of this prompt would be drawn with, and why; nothing is drawn."""
    context = _context(request)
    check_prompt(body.prompt, context.settings)
    user = routing_user(_exchange(request), body.user or "")
    decision = await context.service.route(body.prompt, body.adapter or "auto", user)
    adapter = decision.adapter
    return RouteResponse(
        route=decision.route,
        adapter=adapter.name if adapter else "base",
        adapter_version=adapter.version if adapter else None,
        adapter_sha256=adapter.sha256 if adapter else None,
        alias=decision.alias,
        score=decision.score,
        threshold=decision.threshold,
        reason=decision.reason,
        shadow=[str(each) for each in decision.shadow],
    )


@api.post(
    "/feedback",
    operation_id="giveFeedback",
    summary="Say whether a request's images are good",
    tags=["feedback"],
    response_model=FeedbackResponse,
    responses=errors(400, 401, 403, 404, 408, 413, 429, 500),
)
async def give_feedback(body: FeedbackRequest, request: Request) -> FeedbackResponse:
    """Stores a verdict with the request's prompt, seeds and adapter; bad ones can become a batch of corrections."""
    verdict = Verdict(body.request_id, _exchange(request).caller.name, body.verdict, body.note or "")
    if not await _context(request).service.record_feedback(verdict):
        raise ApiError(
            404,
            "no request of this id was answered with images for this API key, or it is too long ago, or it has its "
            f"{MAX_VERDICTS} verdicts",
            code="request_not_found",
            param="request_id",
        )
    return FeedbackResponse(request_id=body.request_id, verdict=body.verdict)


@health.get("/healthz", operation_id="health", summary="Whether the process lives")
async def healthz() -> dict[str, str]:
    """Always ok; that images can be drawn is for /readyz to say."""
    return {"status": "ok"}


@health.get("/readyz", operation_id="ready", summary="Whether images can be drawn", responses=READY_RESPONSES)
async def readyz(request: Request) -> Response:
    """503 where they cannot. A registry that is down does not count: what was known before is served on, and it says so."""
    readiness = await _context(request).service.ready()
    registry = readiness.registry
    report = {
        "ready": readiness.ready,
        "engine": dict(readiness.engine),
        "registry": {
            "ok": registry.ok,
            "age_seconds": registry.age_seconds,
            "snapshot": registry.snapshot,
            "error": registry.error,
        },
        "refused": dict(registry.refused),
    }
    return JSONResponse(report, 200 if readiness.ready else 503)


async def _drawn(drawing: Drawing) -> list[Picture]:
    await drawing.route()
    return await drawing.pictures()


async def _streamed(drawing: Drawing, exchange: Exchange, context: Context, request: Request) -> Response:
    """Answers when there is something to show: what fails before it has a status of its own."""
    await drawing.route()
    async with AsyncExitStack() as held:
        held.enter_context(context.limits.images(exchange.caller, 1))
        pictures = await held.enter_async_context(aclosing(drawing.stream()))
        first = await while_connected(request.receive, anext(pictures))
        events = image_events(drawing, first, pictures, exchange)
        return EventStream(events, provenance_headers(drawing.provenance(0)), held.pop_all())


def _context(request: Request) -> Context:
    return cast(Context, request.app.state.context)


def _exchange(request: Request) -> Exchange:
    return cast(Exchange, request.state.exchange)


def _json(answer: BaseModel, headers: dict[str, str]) -> Response:
    return Response(answer.model_dump_json(), media_type="application/json", headers=headers)


def _base_model(base: BaseInfo) -> Model:
    return Model(
        id=base.name,
        created=0,
        owned_by="base",
        prompt=None,
        version=base.revision,
        sha256=None,
        alias=None,
        mode=None,
    )


def _models(adapter: ServedAdapter) -> list[Model]:
    """The champion, and the challenger where there is one."""

    def model(name: str, served: ServedVersion) -> Model:
        return Model(
            id=name,
            created=int(served.created.timestamp()),
            owned_by="adapter",
            prompt=adapter.prompt,
            version=served.identity.version,
            sha256=served.identity.sha256,
            alias="champion" if served is adapter.champion else "challenger",
            mode=adapter.traffic.mode,
        )

    challenger = adapter.challenger
    return [
        model(adapter.name, adapter.champion),
        *([model(str(challenger.identity), challenger)] if challenger else []),
    ]
