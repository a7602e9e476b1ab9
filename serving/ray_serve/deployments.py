"""The classes that run in Ray Serve's replicas. They import modules when they start, so that only engines load diffusers."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from ray._common.filters import CoreContextFilter
from ray._common.formatters import JSONFormatter
from ray.serve.handle import DeploymentHandle

if TYPE_CHECKING:
    import numpy as np
    from fastapi import FastAPI

    from corrector.base import BaseSpec
    from corrector.feedback import GenerationRecord, Verdict
    from serving.adapter_identity import AdapterIdentity
    from serving.catalogue.registry_client import RegistryClient
    from serving.catalogue.snapshot import RegistryHealth, Snapshot
    from serving.engine.request import GeneratedImage, ImageRequest
    from serving.engine.stats import EngineStats
    from serving.settings import ServingSettings

_GAUGE_SECONDS = 2.0
_ROUTER_PATIENCE_SECONDS = 120.0
"""Longest time for which a new ingress waits for the router to read all prompts; then it routes without the missing ones."""


class CatalogueReplica:
    """Polls the registry; all other replicas poll this one."""

    def __init__(self, spec: BaseSpec, settings: ServingSettings) -> None:
        from serving.catalogue.adapter_check import adapter_check
        from serving.catalogue.catalogue import Catalogue
        from serving.catalogue.version_lookup import VersionLookup
        from serving.engine.adapter_cache import AdapterDiskCache
        from serving.ray_serve.metrics import CatalogueMetrics

        log_to_stderr()
        registry, engine = _registry(settings), settings.engine
        assert engine.cache is not None
        disk = AdapterDiskCache(engine.cache, registry, budget=engine.disk_cache_bytes)
        self._catalogue = Catalogue(
            registry,
            base_revision=spec.revision,
            check=adapter_check(spec, engine.rank, disk),
            settings=settings.catalogue,
            saved_at=engine.cache / f"snapshot-{spec.revision[:16]}.json",
        )
        self._lookup = VersionLookup(self._catalogue.find, settings.catalogue)
        self._metrics = CatalogueMetrics()
        # Part of an edition, since snapshot numbers start again in every replica.
        self._started = secrets.token_hex(8)
        self._catalogue.refresh()
        self._catalogue.start()

    async def poll(self, known: str) -> tuple[str, Snapshot | None, RegistryHealth]:
        """The edition of the snapshot, the snapshot itself (None where its edition is `known`), and the registry's health."""
        snapshot, health = self._catalogue.snapshot, self._catalogue.health
        edition = f"{self._started}-{snapshot.number}"
        self._metrics.update(health, len(snapshot.adapters))
        return edition, (None if edition == known else snapshot), health

    async def find(self, name: str, version: str) -> AdapterIdentity | None:
        """See `VersionLookup.find`."""
        return await self._lookup.find(name, version)

    def __del__(self) -> None:
        self._lookup.close()
        self._catalogue.close()


class EngineReplica:
    """One engine, on one device."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits it
        self, spec: BaseSpec, settings: ServingSettings, catalogue: DeploymentHandle[Any]
    ) -> None:
        from serving.engine.engine import Engine
        from serving.ray_serve.clients import CatalogueClient
        from serving.ray_serve.metrics import EngineMetrics

        log_to_stderr()
        assert settings.engine.cache is not None
        self._metrics = EngineMetrics(settings.engine.cache)
        self._engine = await asyncio.to_thread(
            Engine, spec, _registry(settings), settings.engine, observer=self._metrics
        )
        self._catalogue = CatalogueClient(catalogue, self._preload)
        await self._catalogue.start(patience=0.1)
        self._gauges = asyncio.create_task(self._update_gauges())

    async def generate(self, request: ImageRequest) -> GeneratedImage:
        """See `Engine.submit`. Cancelling the call stops the drawing at the next step."""
        return await asyncio.wrap_future(self._engine.submit(request))

    async def generate_stream(
        self, request: ImageRequest
    ) -> AsyncIterator[tuple[int, np.ndarray] | GeneratedImage]:
        """Yield previews, each with its number, and then the image."""
        loop = asyncio.get_running_loop()
        shown: asyncio.Queue[tuple[int, np.ndarray] | None] = asyncio.Queue()

        def show(number: int, pixels: np.ndarray) -> None:
            loop.call_soon_threadsafe(shown.put_nowait, (number, pixels))

        image = asyncio.wrap_future(self._engine.submit(request, show))
        image.add_done_callback(lambda _: shown.put_nowait(None))
        try:
            while (preview := await shown.get()) is not None:
                yield preview
            yield await image
        finally:
            image.cancel()

    async def stats(self) -> EngineStats:
        """See `Engine.stats`."""
        return self._engine.stats()

    async def check_health(self) -> None:
        """Called by Ray Serve, which replaces the replica where this raises.

        Raises:
            RuntimeError: The engine has stopped.
        """
        if not self._engine.healthy:
            raise RuntimeError("the engine has stopped")

    async def _preload(self, snapshot: Snapshot) -> None:
        """Preload adapters, the newest first."""
        adapters = sorted(
            snapshot.adapters.values(), key=lambda adapter: adapter.champion.created, reverse=True
        )
        self._engine.preload(
            version.identity
            for adapter in adapters
            if adapter.traffic.mode == "live"
            for version in (adapter.champion, adapter.challenger)
            if version is not None
        )

    async def _update_gauges(self) -> None:
        while True:
            self._metrics.update(self._engine.stats())
            await asyncio.sleep(_GAUGE_SECONDS)

    def __del__(self) -> None:
        self._engine.close()


class FeedbackReplica:
    """Writes the feedback database for all ingresses, so that a verdict finds its request whichever ingress answered it."""

    def __init__(self, place: str, remembered: int) -> None:
        from corrector.feedback import FeedbackStore

        log_to_stderr()
        self._store = FeedbackStore(place, remembered=remembered)

    async def remember(self, request: GenerationRecord) -> None:
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
        from serving.catalogue.snapshot import Snapshot
        from serving.edge import check_environment
        from serving.ingress.base_info import BaseInfo
        from serving.ingress.image_service import ImageService
        from serving.ray_serve.clients import CatalogueClient, RayEngineClient, RayFeedbackClient
        from serving.router.embedding import Embedder
        from serving.router.router import Router
        from serving.router.updater import RouterUpdater

        log_to_stderr()
        check_environment()
        self._settings = settings
        router = await asyncio.to_thread(lambda: Router(Snapshot(), Embedder(), settings.router))
        self._updater = RouterUpdater(router)
        client = CatalogueClient(catalogue, self._updater.update)
        await client.start(patience=_ROUTER_PATIENCE_SECONDS)
        self._service = ImageService(
            BaseInfo.of(spec, max_steps=settings.engine.max_steps),
            RayEngineClient(engine),
            router,
            RayFeedbackClient(feedback),
            snapshot=lambda: client.snapshot,
            registry_health=lambda: client.health,
            find_version=client.find_version,
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve after the constructor."""
        from serving.edge import RefuseRayHeaders
        from serving.ingress.app import create_app
        from serving.ray_serve.metrics import IngressMetrics

        app = create_app(self._service, self._settings.ingress, IngressMetrics())
        app.add_middleware(RefuseRayHeaders)
        return app


def _registry(settings: ServingSettings) -> RegistryClient:
    from serving.catalogue.registry_client import RegistryClient

    assert settings.registry_root is not None
    return RegistryClient(settings.tracking_uri, settings.registry_root)


def log_to_stderr() -> None:
    """Log to standard error, which Ray collects; lines of the access log are written as they are, in JSON.

    With `RAY_LOGGING_CONFIG_ENCODING=JSON` the other lines are JSON, too, as Ray writes it.
    """
    root = logging.getLogger("serving")
    if root.handlers:
        return
    root.setLevel(logging.INFO)
    text = logging.Formatter("%(levelname)s %(name)s: %(message)s")
    as_json = os.environ.get("RAY_LOGGING_CONFIG_ENCODING") == "JSON"
    for logger, formatter in (
        (root, JSONFormatter() if as_json else text),
        (logging.getLogger("serving.access"), logging.Formatter("%(message)s")),
    ):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(formatter)
        handler.addFilter(CoreContextFilter())
        logger.addHandler(handler)
        logger.propagate = False
