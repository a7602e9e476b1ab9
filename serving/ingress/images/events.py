"""The server-sent events of a streamed image, as in OpenAI's API."""

import json
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any

from serving.ingress.http.errors import to_api_error
from serving.ingress.http.schema import CompletedImage, PartialImage
from serving.ingress.images.generation import EncodedImage, EncodedPreview, ImageGeneration

logger = logging.getLogger(__name__)


async def image_events(
    generation: ImageGeneration,
    first: EncodedPreview | EncodedImage,
    others: AsyncGenerator[EncodedPreview | EncodedImage, None],
) -> AsyncGenerator[bytes, None]:
    """`image_generation.partial_image` and `image_generation.completed`, or `error` where drawing fails."""
    try:
        yield _event(generation, first)
        async for image in others:
            yield _event(generation, image)
    except Exception as error:
        answer = to_api_error(error)
        if answer.status_code >= 500:
            request = generation.context.id
            logger.exception("request %s failed", request, extra={"request_id": request})
        generation.context.code = answer.code
        yield f"event: error\ndata: {json.dumps(answer.body())}\n\n".encode()


def _event(generation: ImageGeneration, image: EncodedPreview | EncodedImage) -> bytes:
    common: dict[str, Any] = {
        "b64_json": image.file,
        "created_at": int(time.time()),
        "output_format": generation.params.output_format,
        "size": generation.params.size,
    }
    event: PartialImage | CompletedImage
    if isinstance(image, EncodedPreview):
        event = PartialImage(partial_image_index=image.index, **common)
    else:
        event = CompletedImage(usage=generation.usage(), provenance=image.provenance, **common)
    return f"event: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()
