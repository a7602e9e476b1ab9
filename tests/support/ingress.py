"""A real endpoint in this process: the embedded base, adapters that change every image, a router, HTTP on loopback."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
from PIL import Image

from corrector.base import resolve_base
from corrector.feedback import FILE_NAME, FeedbackStore
from serving.catalogue.snapshot import ServedAdapter, ServedVersion, Snapshot, Traffic
from serving.engine.engine import Engine
from serving.ingress.base_info import BaseInfo
from serving.ingress.image_service import ImageService
from serving.router.embedding import Embedder
from serving.router.router import Router
from serving.settings import EngineSettings
from tests.support.local_clients import LocalEngineClient, LocalFeedbackClient
from tests.support.served_adapters import FolderSource, write_adapter

LYING = "a person lying on the grass"
PARAPHRASE = "someone lying in the grass"
GUARD = "a person standing on the grass"
SITTING = "a dog sitting on the beach"
CREATED = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """What requests are answered with."""

    engine: Engine
    service: ImageService
    snapshot: Snapshot
    verdicts: Path


@contextmanager
def small_world(folder: Path, **settings: Any) -> Iterator[World]:
    """`lying` with a champion, 1, and a challenger, 2, that nobody is given; `sitting`, 1, in shadow mode; `broken`, whose
    bytes cannot be had."""
    versions = [
        write_adapter(folder / "lying-1", "lying", seed=1),
        write_adapter(folder / "lying-2", "lying", seed=2, version="2"),
        write_adapter(folder / "sitting-1", "sitting", seed=3),
        write_adapter(folder / "broken-1", "broken", seed=4),
    ]
    champion, challenger, sitting, broken = (ServedVersion(identity, CREATED) for identity in versions)
    adapters = (
        ServedAdapter("lying", LYING, (PARAPHRASE,), (GUARD,), champion, challenger),
        ServedAdapter("sitting", SITTING, (), (), sitting, traffic=Traffic("shadow")),
        ServedAdapter("broken", "two robots boxing", (), (), broken),
    )
    snapshot = Snapshot(1, {adapter.name: adapter for adapter in adapters})
    source = FolderSource((each, folder / f"{each.name}-{each.version}") for each in versions[:3])
    engine = Engine(
        resolve_base("embedded"), source, EngineSettings(cache=folder / "cache", device="cpu", **settings)
    )
    store = FeedbackStore(folder / "feedback", remembered=1000)
    router = Router(snapshot, Embedder())
    base = BaseInfo.of(engine.spec, max_steps=engine.settings.max_steps)
    service = ImageService(
        base, LocalEngineClient(engine), router, LocalFeedbackClient(store), snapshot=lambda: snapshot
    )
    try:
        yield World(engine, service, snapshot, folder / "feedback" / FILE_NAME)
    finally:
        store.close()
        engine.close()


def idle(world: World) -> bool:
    """Whether the engine has nothing to draw."""
    stats = world.engine.stats()
    return stats.waiting == stats.drawing == 0


def openai_client(address: str, key: str = "none", **options: Any) -> openai.OpenAI:
    """As a product team makes it."""
    # Without TLS there is nothing to verify, and certificates take longer to read than most answers to come.
    client = openai.DefaultHttpxClient(verify=False)
    chosen = {"max_retries": 0, "http_client": client, **options}
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, **chosen)


def post(address: str, body: Any, *, path: str = "/v1/images/generations", **options: Any) -> httpx2.Response:
    """The answer to a JSON body; `content` sends other bytes."""
    chosen = {"headers": {"content-type": "application/json"}, **options}
    with httpx2.Client(timeout=240, verify=False) as client:
        if "content" not in chosen:
            chosen["json"] = body
        return client.post(address + path, **chosen)


def pixels(b64: str) -> np.ndarray:
    """Of a base64 file, `[height, width, 3]`."""
    with Image.open(io.BytesIO(base64.b64decode(b64))) as image:
        return np.asarray(image.convert("RGB"))
