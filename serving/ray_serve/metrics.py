"""Prometheus metrics of the replicas, as `ray_corrector_*`, with Ray's own tags."""

from pathlib import Path

from ray.util.metrics import Counter, Gauge, Histogram

from corrector.files import disk_space
from serving.catalogue.snapshot import RegistryHealth
from serving.engine.request import GeneratedImage
from serving.engine.stats import EngineObserver, EngineStats
from serving.ingress.observer import IngressObserver
from serving.router.decision import Decision

_SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120]
_STEP_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]
_ROWS = [1.0, 2, 4, 8, 12, 16, 24, 32, 48, 64]
_SCORES = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1]


class IngressMetrics(IngressObserver):
    """Requests, routes and times."""

    def __init__(self) -> None:
        self._requests = Counter("corrector_http_requests", "Ended requests.", ("method", "path", "status"))
        self._seconds = Histogram(
            "corrector_http_request_seconds", "From a request's head to its end.", _SECONDS, ("path",)
        )
        self._rejections = Counter(
            "corrector_rejections", "Requests answered with an error, by its code.", ("status", "code")
        )
        self._routes = Counter(
            "corrector_routes", "Images requests by where they went, and why.", ("route", "adapter", "alias")
        )
        self._shadowed = Counter(
            "corrector_shadow_routes", "Adapters in shadow mode that would have been chosen.", ("adapter",)
        )
        self._scores = Histogram(
            "corrector_route_score",
            "Probability by the router's classifier, of the deciding or nearest adapter.",
            _SCORES,
            ("route",),
        )
        self._queue = Histogram(
            "corrector_queue_seconds", "From submission to the first denoising step.", _SECONDS, ("route",)
        )
        self._denoise = Histogram(
            "corrector_denoise_seconds", "From the first denoising step to the last.", _SECONDS, ("route",)
        )
        self._lost = Counter(
            "corrector_feedback_lost", "Answered requests that were not stored for feedback."
        )

    def routed(self, decision: Decision) -> None:
        tags = {"route": decision.route, "adapter": decision.adapter_name, "alias": decision.alias or "none"}
        self._routes.inc(tags=tags)
        for shadow in decision.shadow:
            self._shadowed.inc(tags={"adapter": shadow.name})
        if decision.score is not None:
            self._scores.observe(decision.score, tags={"route": decision.route})

    def rejected(self, status: int, code: str) -> None:
        self._rejections.inc(tags={"status": str(status), "code": code})

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        # Clients choose paths and methods; all that the API does not have share one value of the tag.
        path = route or "none"
        self._requests.inc(tags={"method": method if route else "none", "path": path, "status": str(status)})
        self._seconds.observe(seconds, tags={"path": path})

    def generated(self, decision: Decision, queue_seconds: float, denoise_seconds: float) -> None:
        self._queue.observe(queue_seconds, tags={"route": decision.route})
        self._denoise.observe(denoise_seconds, tags={"route": decision.route})

    def feedback_lost(self) -> None:
        self._lost.inc()


class EngineMetrics(EngineObserver):
    """Steps, images, memory, and the disk of the cache."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._rows = Histogram("corrector_step_rows", "Rows of a denoising step.", _ROWS)
        self._seconds = Histogram("corrector_step_seconds", "Time of a denoising step.", _STEP_SECONDS)
        self._images = Counter("corrector_images", "Images drawn.", ("adapter",))
        self._swaps = Counter("corrector_adapter_swaps", "Adapters copied to the device.")
        self._gauges = _gauges(
            images_waiting="Images that wait for a denoising step.",
            images_drawing="Images under way.",
            adapters_resident="Adapters on the device.",
            adapters_in_memory="Adapters in host memory.",
            adapter_bytes="Host memory of adapters.",
            text_bytes="Host memory of text embeddings.",
            cache_disk_bytes="Of the disk of the node's cache.",
            cache_disk_free_bytes="Of the disk of the node's cache.",
        )

    def stepped(self, rows: int, seconds: float) -> None:
        self._rows.observe(max(rows, 1))
        self._seconds.observe(max(seconds, 1e-6))

    def generated(self, image: GeneratedImage) -> None:
        self._images.inc(tags={"adapter": image.adapter.name if image.adapter else "base"})

    def adapter_loaded(self) -> None:
        self._swaps.inc()

    def update(self, stats: EngineStats) -> None:
        self._gauges["images_waiting"].set(stats.waiting)
        self._gauges["images_drawing"].set(stats.drawing)
        self._gauges["adapters_resident"].set(len(stats.resident))
        self._gauges["adapters_in_memory"].set(stats.host_adapters)
        self._gauges["adapter_bytes"].set(stats.host_bytes)
        self._gauges["text_bytes"].set(stats.text_bytes)
        total, free = disk_space(self._cache)
        self._gauges["cache_disk_bytes"].set(total)
        self._gauges["cache_disk_free_bytes"].set(free)


class CatalogueMetrics:
    """The registry's health and the number of served adapters."""

    def __init__(self) -> None:
        self._gauges = _gauges(
            registry_ok="1 while the registry answers.",
            registry_age_seconds="Since the registry answered last.",
            snapshot="Number of what is served.",
            adapters_served="Adapters that prompts can be routed to.",
            versions_refused="Versions with an alias that cannot be served.",
        )

    def update(self, health: RegistryHealth, adapters: int) -> None:
        self._gauges["registry_ok"].set(float(health.ok))
        if health.age_seconds is not None:
            self._gauges["registry_age_seconds"].set(health.age_seconds)
        self._gauges["snapshot"].set(health.snapshot)
        self._gauges["adapters_served"].set(adapters)
        self._gauges["versions_refused"].set(len(health.refused))


def _gauges(**descriptions: str) -> dict[str, Gauge]:
    return {name: Gauge(f"corrector_{name}", text) for name, text in descriptions.items()}
