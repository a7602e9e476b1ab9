"""The events of a streamed image, as OpenAI's API has them."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncGenerator

from serving.ingress.drawing import Drawing, Picture, Sketch
from serving.ingress.errors import of_service
from serving.ingress.middleware import Exchange
from serving.ingress.schema import CompletedImage, PartialImage

logger = logging.getLogger(__name__)


async def image_events(
    drawing: Drawing,
    first: Sketch | Picture,
    others: AsyncGenerator[Sketch | Picture, None],
    exchange: Exchange,
) -> AsyncGenerator[bytes, None]:
    """`image_generation.partial_image` and `image_generation.completed`; where drawing fails on the way, `error`."""
    try:
        yield _event(drawing, first)
        async for picture in others:
            yield _event(drawing, picture)
    except Exception as error:
        answer = of_service(error)
        if answer.status_code >= 500:
            logger.exception("request %s failed", exchange.id)
        exchange.code = answer.code
        yield f"event: error\ndata: {json.dumps(answer.body())}\n\n".encode()


def _event(drawing: Drawing, picture: Sketch | Picture) -> bytes:
    plan = drawing.plan
    event: PartialImage | CompletedImage
    if isinstance(picture, Sketch):
        event = PartialImage(
            b64_json=picture.file,
            created_at=int(time.time()),
            output_format=plan.output_format,
            partial_image_index=picture.index,
            size=plan.size,
        )
    else:
        event = CompletedImage(
            b64_json=picture.file,
            created_at=int(time.time()),
            output_format=plan.output_format,
            size=plan.size,
            usage=drawing.usage(),
            provenance=picture.provenance,
        )
    return f"event: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()
