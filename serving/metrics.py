"""What Prometheus is told, as `ray_corrector_*`, by every replica with Ray's own tags beside these."""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge, Histogram

from serving.catalogue.health import RegistryHealth
from serving.engine.observing import EngineStats
from serving.engine.request import Drawn
from serving.router.decision import Decision

_SECONDS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120]
_STEP_SECONDS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]
_ROWS = [1.0, 2, 4, 8, 12, 16, 24, 32, 48, 64]
_SCORES = [0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1]


class IngressMetrics:
    """An `Observer` of the ingress."""

    def __init__(self) -> None:
        self._requests = Counter(
            "corrector_http_requests",
            "Requests that ended, by path and status.",
            ("method", "path", "status"),
        )
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
            "Probability by the head that decided, or the nearest.",
            _SCORES,
            ("route",),
        )
        self._queue = Histogram(
            "corrector_queue_seconds", "Of an image, until its first denoising step.", _SECONDS, ("route",)
        )
        self._denoise = Histogram(
            "corrector_denoise_seconds", "Of an image, first step to last.", _SECONDS, ("route",)
        )

    def routed(self, decision: Decision) -> None:
        """See `Observer`."""
        adapter = decision.adapter.name if decision.adapter else "base"
        self._routes.inc(
            tags={"route": decision.route, "adapter": adapter, "alias": decision.alias or "none"}
        )
        for shadow in decision.shadow:
            self._shadowed.inc(tags={"adapter": shadow.name})
        if decision.score is not None:
            self._scores.observe(decision.score, tags={"route": decision.route})

    def rejected(self, status: int, code: str) -> None:
        """See `Observer`."""
        self._rejections.inc(tags={"status": str(status), "code": code})

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """See `Observer`. Paths and methods come from outside: what the API does not have is one value."""
        path = route or "none"
        known = method if route else "none"
        self._requests.inc(tags={"method": known, "path": path, "status": str(status)})
        self._seconds.observe(seconds, tags={"path": path})

    def drawn(self, decision: Decision, queue_seconds: float, denoise_seconds: float) -> None:
        """See `Observer`."""
        self._queue.observe(queue_seconds, tags={"route": decision.route})
        self._denoise.observe(denoise_seconds, tags={"route": decision.route})


class EngineMetrics:
    """An `Observer` of the engine."""

    def __init__(self) -> None:
        self._rows = Histogram("corrector_step_rows", "Rows of a denoising step.", _ROWS)
        self._seconds = Histogram("corrector_step_seconds", "Of a denoising step.", _STEP_SECONDS)
        self._images = Counter("corrector_images", "Images drawn.", ("adapter",))
        self._swaps = Counter("corrector_adapter_swaps", "Adapters copied to the device.")
        self._gauges = {
            name: Gauge(f"corrector_{name}", description)
            for name, description in {
                "images_waiting": "Images that wait for a denoising step.",
                "images_drawing": "Images under way.",
                "adapters_resident": "Adapters on the device.",
                "adapters_in_memory": "Adapters in host memory.",
                "adapter_bytes": "Host memory of adapters.",
                "text_bytes": "Host memory of text embeddings.",
            }.items()
        }

    def stepped(self, rows: int, seconds: float) -> None:
        """See `Observer`."""
        self._rows.observe(max(rows, 1))
        self._seconds.observe(max(seconds, 1e-6))

    def drawn(self, drawn: Drawn) -> None:
        """See `Observer`."""
        self._images.inc(tags={"adapter": drawn.adapter.name if drawn.adapter else "base"})

    def loaded(self) -> None:
        """See `Observer`."""
        self._swaps.inc()

    def stands(self, stats: EngineStats) -> None:
        """How it stands now."""
        values = {
            "images_waiting": stats.waiting,
            "images_drawing": stats.drawing,
            "adapters_resident": len(stats.resident),
            "adapters_in_memory": stats.host_adapters,
            "adapter_bytes": stats.host_bytes,
            "text_bytes": stats.text_bytes,
        }
        for name, value in values.items():
            self._gauges[name].set(value)


class CatalogueMetrics:
    """How the catalogue stands with the registry."""

    def __init__(self) -> None:
        self._ok = Gauge("corrector_registry_ok", "1 while the registry answers.")
        self._age = Gauge("corrector_registry_age_seconds", "Since the registry answered last.")
        self._snapshot = Gauge("corrector_snapshot", "Number of what is served.")
        self._adapters = Gauge("corrector_adapters_served", "Adapters that prompts can be routed to.")
        self._refused = Gauge("corrector_versions_refused", "Versions with an alias that cannot be served.")

    def stands(self, health: RegistryHealth, adapters: int) -> None:
        """How it stands now."""
        self._ok.set(float(health.ok))
        if health.age_seconds is not None:
            self._age.set(health.age_seconds)
        self._snapshot.set(health.snapshot)
        self._adapters.set(adapters)
        self._refused.set(len(health.refused))
