"""Small requests to an engine of the embedded base."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from corrector.base import resolve_base
from serving.engine.engine import Engine
from serving.engine.request import GeneratedImage, ImageRequest
from serving.settings import EngineSettings

SPEC = resolve_base("embedded")
PROMPTS = ("a person lying on the grass", "a dog sitting on the beach", "a robot jumping on the street")
_numbers = count()


def request(prompt: str = PROMPTS[0], **changed: Any) -> ImageRequest:
    """Two steps at 32 pixels without guidance for `prompt`; `changed` replaces fields."""
    plain = ImageRequest(
        id=f"r{next(_numbers)}",
        prompt=prompt,
        seed=0,
        num_inference_steps=2,
        guidance_scale=1.0,
        height=32,
        width=32,
    )
    return replace(plain, **changed)


def settings(folder: Path, **changed: Any) -> EngineSettings:
    """An engine of four slots and batches of four rows on the CPU, with its cache in `folder`; `changed` replaces fields."""
    chosen = {"cache": folder, "row_buckets": (4,), "slots": 4, "rank": 8, "device": "cpu", **changed}
    return EngineSettings.model_validate(chosen)


def draw(engine: Engine, *requests: ImageRequest) -> list[GeneratedImage]:
    """The images of `requests`, which wait together."""
    futures = [engine.submit(one) for one in requests]
    return [future.result(60) for future in futures]
