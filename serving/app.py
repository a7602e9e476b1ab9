"""The application: `serve run serving.app:app` for one machine, `serving.app:build` with arguments in config.yaml."""

import os

import torch
from ray import serve
from ray.serve.config import AutoscalingConfig

from corrector.base import resolve_base
from serving.deployments import CatalogueReplica, EngineReplica, FeedbackReplica, IngressReplica
from serving.settings import Replicas, ServingSettings

# Two headers let any client lift Ray Serve's limits. They are taken off in its HTTP proxies, which read this variable when
# they start: of a Ray that `serve run` starts itself, these; `cluster` and k8s set it for theirs.
os.environ.setdefault("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "serving.edge.middlewares")

_MARGIN = 32
"""Calls beyond what an engine takes that it answers itself: who comes too late is told when to come again."""


# No annotations from __future__ here: Ray Serve reads the argument's type and validates what config.yaml says.
def build(settings: ServingSettings) -> serve.Application:
    """The deployments of one endpoint.

    Raises:
        UserError: There is no such base.
    """
    settings = settings.located()
    spec = resolve_base(settings.base, precision=settings.precision)
    gpus = settings.engine_gpus
    if gpus is None:
        gpus = 1.0 if torch.cuda.is_available() else 0.0
    engine_room = settings.engine.max_waiting + settings.engine.row_buckets[-1] + _MARGIN
    light = {"num_cpus": 0}
    catalogue = serve.deployment(name="catalogue", num_replicas=1, ray_actor_options=light)
    feedback = serve.deployment(name="feedback", num_replicas=1, ray_actor_options=light)
    engine = serve.deployment(
        name="engine",
        autoscaling_config=_autoscaling(settings.engines),
        max_ongoing_requests=engine_room,
        max_queued_requests=engine_room,
        ray_actor_options={"num_cpus": settings.engine_cpus, "num_gpus": gpus},
        health_check_period_s=2,
        graceful_shutdown_timeout_s=120,
    )
    ingress = serve.deployment(
        name="ingress",
        autoscaling_config=_autoscaling(settings.ingresses),
        # Whatever reaches an ingress gets its answer from there: Ray Serve's own refusals are no JSON.
        max_ongoing_requests=100_000,
        ray_actor_options={"num_cpus": settings.ingress_cpus},
        health_check_period_s=5,
    )
    following = catalogue(CatalogueReplica).bind(spec, settings)
    return ingress(serve.ingress()(IngressReplica)).bind(
        spec,
        settings,
        engine(EngineReplica).bind(spec, settings, following),
        following,
        feedback(FeedbackReplica).bind(settings),
    )


def _autoscaling(replicas: Replicas) -> AutoscalingConfig:
    return AutoscalingConfig(
        min_replicas=replicas.least,
        max_replicas=replicas.most,
        target_ongoing_requests=replicas.target_requests,
    )


app = build(ServingSettings())
