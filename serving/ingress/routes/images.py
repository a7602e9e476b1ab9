"""POST /v1/images/generations and /v1/route."""

import time
from contextlib import AsyncExitStack, aclosing

from fastapi import Request, Response

from serving.ingress.app_context import AppContext, RequestContext
from serving.ingress.http.body import api_router
from serving.ingress.http.event_stream import EventStream, while_connected
from serving.ingress.http.headers import ignored_header, provenance_headers
from serving.ingress.http.openapi import STREAMED_IMAGES, errors
from serving.ingress.http.schema import (
    ImageData,
    ImagesRequest,
    ImagesResponse,
    RouteRequest,
    RouteResponse,
)
from serving.ingress.image_service import AUTO, AdapterChoice
from serving.ingress.images.events import image_events
from serving.ingress.images.generation import EncodedImage, ImageGeneration
from serving.ingress.images.params import check_prompt, generation_params

router = api_router()


@router.post(
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
    app, context = AppContext.of(request), RequestContext.of(request)
    params = generation_params(body, app.service.base, app.settings)
    generation = ImageGeneration(params, context, app)
    if params.stream:
        return await _streamed(generation, request)
    with app.limits.images(context.caller, len(params.seeds)):
        images = await while_connected(request.receive, _drawn(generation))
    provenance = images[0].provenance.model_copy(
        update={
            "queue_ms": max(image.provenance.queue_ms or 0 for image in images),
            "denoise_ms": max(image.provenance.denoise_ms or 0 for image in images),
        }
    )
    answer = ImagesResponse(
        created=int(time.time()),
        data=[ImageData(b64_json=image.file, seed=image.provenance.seed) for image in images],
        output_format=params.output_format,
        size=params.size,
        usage=generation.usage(),
        provenance=provenance,
    )
    headers = provenance_headers(provenance) | ignored_header(params.ignored)
    return Response(answer.model_dump_json(), media_type="application/json", headers=headers)


@router.post(
    "/route",
    operation_id="routePrompt",
    summary="Say where a prompt would go",
    tags=["images"],
    response_model=RouteResponse,
    responses=errors(400, 401, 403, 404, 408, 413, 429, 500, 503),
)
async def route(body: RouteRequest, request: Request) -> RouteResponse:
    """The adapter that an image of this prompt would be drawn with, and why; nothing is drawn."""
    app, context = AppContext.of(request), RequestContext.of(request)
    check_prompt(body.prompt, app.settings)
    decision = await app.service.route(
        body.prompt,
        AdapterChoice(body.adapter or AUTO),
        context.routing_user(body.user or ""),
        unreviewed=context.caller.unreviewed,
    )
    adapter = decision.adapter
    return RouteResponse(
        route=decision.route,
        adapter=decision.adapter_name,
        adapter_version=adapter.version if adapter else None,
        adapter_sha256=adapter.sha256 if adapter else None,
        alias=decision.alias,
        score=decision.score,
        threshold=decision.threshold,
        reason=decision.reason,
        shadow=[str(each) for each in decision.shadow],
    )


async def _drawn(generation: ImageGeneration) -> list[EncodedImage]:
    await generation.route()
    return await generation.images()


async def _streamed(generation: ImageGeneration, request: Request) -> Response:
    """Wait for the first event before answering, so that an earlier error is answered with its own status."""
    app, context = AppContext.of(request), RequestContext.of(request)
    await generation.route()
    async with AsyncExitStack() as resources:
        resources.enter_context(app.limits.images(context.caller, 1))
        images = await resources.enter_async_context(aclosing(generation.stream()))
        first = await while_connected(request.receive, anext(images))
        events = image_events(generation, first, images)
        headers = provenance_headers(generation.provenance(0)) | ignored_header(generation.params.ignored)
        return EventStream(events, headers, resources.pop_all())
