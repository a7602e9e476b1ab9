"""The Ray Serve application: `serve run serving.app:app` on one machine, `serving.app:build` with arguments in config.yaml."""

import os

from ray import serve
from ray.serve.config import AutoscalingConfig

from corrector.base import resolve_base
from serving.edge import VALUE, VARIABLE
from serving.ray_serve.deployments import CatalogueReplica, EngineReplica, FeedbackReplica, IngressReplica
from serving.settings import Replicas, ServingSettings

# For a Ray that `serve run` starts itself; for any other the variable must be set where Ray is started.
os.environ.setdefault(VARIABLE, VALUE)

_MARGIN = 32
"""Calls beyond an engine's capacity that reach it: it answers them with Overloaded, which says when to try again."""
_CATALOGUE_CALLS = 1000
"""Concurrent calls of the catalogue: a poll a second from every replica, and lookups, which have a bound of their own."""


# No annotations from __future__ here: Ray Serve reads the argument's type and validates what config.yaml says.
def build(settings: ServingSettings) -> serve.Application:
    """The deployments of one endpoint.

    Raises:
        UserError: There is no such base.
    """
    settings = settings.located()
    spec = resolve_base(settings.base, precision=settings.precision)
    engine_calls = settings.engine.max_waiting + settings.engine.row_buckets[-1] + _MARGIN
    catalogue = serve.deployment(
        name="catalogue",
        num_replicas=1,
        max_ongoing_requests=_CATALOGUE_CALLS,
        ray_actor_options={"num_cpus": 0},
    )
    # On the head node, so that a new replica finds the files of the one before.
    feedback = serve.deployment(
        name="feedback",
        num_replicas=1,
        max_ongoing_requests=_CATALOGUE_CALLS,
        ray_actor_options={"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}},
    )
    engine = serve.deployment(
        name="engine",
        autoscaling_config=_autoscaling(settings.engines),
        max_ongoing_requests=engine_calls,
        max_queued_requests=engine_calls,
        ray_actor_options={"num_cpus": settings.engine_cpus, "num_gpus": _gpus(settings)},
        health_check_period_s=2,
        graceful_shutdown_timeout_s=120,
    )
    ingress = serve.deployment(
        name="ingress",
        autoscaling_config=_autoscaling(settings.ingresses),
        # The ingress refuses requests itself, since Ray Serve's refusals are not JSON.
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
        feedback(FeedbackReplica).bind(settings.ingress.feedback, settings.ingress.remembered_requests),
    )


def _gpus(settings: ServingSettings) -> float:
    if settings.engine_gpus is not None:
        return settings.engine_gpus
    import torch

    return 1.0 if torch.cuda.is_available() else 0.0


def _autoscaling(replicas: Replicas) -> AutoscalingConfig:
    return AutoscalingConfig(
        min_replicas=replicas.least,
        max_replicas=replicas.most,
        target_ongoing_requests=replicas.target_requests,
    )


app = build(ServingSettings())
