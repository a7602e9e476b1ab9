"""What runs in Ray Serve's replicas: thin shells around the parts, which app.py makes deployments of."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI
from ray.serve.handle import DeploymentHandle

from corrector.base import BaseSpec
from corrector.errors import UserError
from serving.catalogue.catalogue import Catalogue
from serving.catalogue.fitness import fitness
from serving.catalogue.health import RegistryHealth
from serving.catalogue.reading import Registry
from serving.catalogue.snapshot import Snapshot
from serving.engine.adapters import DiskCache
from serving.engine.engine import Engine
from serving.engine.observing import EngineStats
from serving.engine.request import Drawn, ImageRequest
from serving.identity import AdapterIdentity
from serving.ingress.app import create_app
from serving.ingress.feedback import FeedbackStore, open_feedback
from serving.ingress.routed import RoutedService
from serving.ingress.service import BaseInfo, DrawnRequest, Verdict
from serving.metrics import CatalogueMetrics, EngineMetrics, IngressMetrics
from serving.remote import Follower, RemoteEngines, RemoteFeedback
from serving.router.embedding import Embedder
from serving.router.router import Router
from serving.settings import ServingSettings

_GAUGE_SECONDS = 2.0
_HEADS_PATIENCE_SECONDS = 120.0
"""How long a new ingress waits for its heads to be trained before it routes without those that are missing."""


class CatalogueReplica:
    """One follower of the registry for all replicas of the others."""

    def __init__(self, spec: BaseSpec, settings: ServingSettings) -> None:
        _log_to_stderr()
        registry, engine = registry_of(settings), settings.engine
        assert engine.cache is not None
        disk = DiskCache(engine.cache, registry, budget=engine.disk_cache_bytes)
        self._catalogue = Catalogue(
            registry,
            base_revision=spec.revision,
            check=fitness(spec, engine.rank, disk),
            settings=settings.catalogue,
            saved_at=engine.cache / f"snapshot-{spec.revision[:16]}.json",
        )
        self._metrics = CatalogueMetrics()
        # Numbers begin anew in every replica.
        self._began = secrets.token_hex(8)
        self._catalogue.look()
        self._catalogue.follow()

    async def look(self, known: str) -> tuple[str, Snapshot | None, RegistryHealth]:
        """What is served and its edition, None where the caller knows that edition; and how it stands with the registry."""
        snapshot, health = self._catalogue.snapshot, self._catalogue.health
        edition = f"{self._began}-{snapshot.number}"
        self._metrics.stands(health, len(snapshot.adapters))
        return edition, (None if edition == known else snapshot), health

    async def find(self, name: str, version: str) -> AdapterIdentity | None:
        """See `Catalogue.find`; None where it raises."""
        try:
            return await asyncio.to_thread(self._catalogue.find, name, version)
        except UserError as error:
            logging.getLogger(__name__).info("%s@%s cannot be served: %s", name, version, error)
            return None

    def __del__(self) -> None:
        self._catalogue.close()


class EngineReplica:
    """One engine, on one device."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, spec: BaseSpec, settings: ServingSettings, catalogue: DeploymentHandle[Any]
    ) -> None:
        _log_to_stderr()
        self._metrics = EngineMetrics()
        self._engine = await asyncio.to_thread(
            Engine, spec, registry_of(settings), settings.engine, observer=self._metrics
        )
        self._follower = Follower(catalogue, self._preload)
        await self._follower.start(patience=0.1)
        self._gauges = asyncio.create_task(self._tell())

    async def draw(self, request: ImageRequest) -> Drawn:
        """See `Engine.submit`. Cancelling the call stops the drawing at the next step."""
        return await asyncio.wrap_future(self._engine.submit(request))

    async def draw_showing(self, request: ImageRequest) -> AsyncIterator[tuple[int, np.ndarray] | Drawn]:
        """Previews, each with its number, and then the image."""
        loop = asyncio.get_running_loop()
        shown: asyncio.Queue[tuple[int, np.ndarray] | None] = asyncio.Queue()

        def show(number: int, pixels: np.ndarray) -> None:
            loop.call_soon_threadsafe(shown.put_nowait, (number, pixels))

        drawing = asyncio.wrap_future(self._engine.submit(request, show))
        drawing.add_done_callback(lambda _: shown.put_nowait(None))
        try:
            while (preview := await shown.get()) is not None:
                yield preview
            yield await drawing
        finally:
            drawing.cancel()

    async def stats(self) -> EngineStats:
        """How it stands."""
        return self._engine.stats()

    async def check_health(self) -> None:
        """Ray Serve replaces a replica whose engine has stopped.

        Raises:
            RuntimeError: It has.
        """
        if not self._engine.healthy:
            raise RuntimeError("the engine has stopped")

    async def _preload(self, snapshot: Snapshot) -> None:
        newest = sorted(
            snapshot.adapters.values(), key=lambda adapter: adapter.champion.created, reverse=True
        )
        served = [
            version.identity
            for adapter in newest
            if adapter.traffic.mode == "live"
            for version in (adapter.champion, adapter.challenger)
            if version is not None
        ]
        self._engine.preload(served)

    async def _tell(self) -> None:
        while True:
            self._metrics.stands(self._engine.stats())
            await asyncio.sleep(_GAUGE_SECONDS)

    def __del__(self) -> None:
        self._engine.close()


class FeedbackReplica:
    """One store, so that a verdict finds its request whichever ingress had it."""

    def __init__(self, settings: ServingSettings) -> None:
        _log_to_stderr()
        self._store: FeedbackStore = open_feedback(settings.ingress)

    async def remember(self, request: DrawnRequest) -> None:
        """See `FeedbackStore`."""
        await asyncio.to_thread(self._store.remember, request)

    async def record(self, verdict: Verdict) -> bool:
        """See `FeedbackStore`."""
        return await asyncio.to_thread(self._store.record, verdict)


class IngressReplica:
    """HTTP, and the router."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self,
        spec: BaseSpec,
        settings: ServingSettings,
        engine: DeploymentHandle[Any],
        catalogue: DeploymentHandle[Any],
        feedback: DeploymentHandle[Any],
    ) -> None:
        _log_to_stderr()
        self._settings = settings
        router = await asyncio.to_thread(lambda: Router(Snapshot(), Embedder(), settings.router))

        async def changed(snapshot: Snapshot) -> None:
            await asyncio.to_thread(router.update, snapshot)

        follower = Follower(catalogue, changed)
        await follower.start(patience=_HEADS_PATIENCE_SECONDS)
        self._service = RoutedService(
            BaseInfo.of(spec, max_steps=settings.engine.max_steps),
            RemoteEngines(engine),
            router,
            RemoteFeedback(feedback),
            snapshot=lambda: follower.snapshot,
            registry=lambda: follower.health,
            find=follower.find,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve after the constructor."""
        return create_app(self._service, self._settings.ingress, IngressMetrics())


def registry_of(settings: ServingSettings) -> Registry:
    """Where the settings say that adapters are registered."""
    assert settings.registry_root is not None
    return Registry(settings.tracking_uri, Path(settings.registry_root))


def _log_to_stderr() -> None:
    """What this project logs goes where Ray collects it; the access log as the JSON lines that it is."""
    root = logging.getLogger("serving")
    if root.handlers:
        return
    lines: Any = logging.StreamHandler(sys.stderr)
    lines.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    root.addHandler(lines)
    root.setLevel(logging.INFO)
    root.propagate = False
    access = logging.getLogger("serving.access")
    plain: Any = logging.StreamHandler(sys.stderr)
    plain.setFormatter(logging.Formatter("%(message)s"))
    access.addHandler(plain)
    access.propagate = False
