"""Encodes a batch's texts and exemplars once, in parallel, before lanes train.

Each share is a Ray task with its own device. It loads the text encoders, then the VAE, and not the transformer; lanes load the
transformer and no text encoder. A task that is retried, or a batch that is submitted again, encodes only what is not in the
cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from corrector.base import BaseSpec, check_transformer
from corrector.exemplars.curation import Decisions
from corrector.loaded_base import Base
from corrector.prompt_inputs import exemplar_posterior, texts_of
from corrector.prompts import EvaluationSettings
from corrector.storage import Storage
from jobs.inputs.counted_cache import CountedCache, count_cache_read
from jobs.inputs.exemplar_check import require_effective
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.ray_tasks import bound_threads
from jobs.log_context import log_context

TEXTS_PER_SHARE = 64
"""With fewer texts per share, loading the text encoders again takes longer than encoding them."""


@dataclass(frozen=True)
class Share:
    """The work of one Ray task: texts, and the exemplars of `tasks`."""

    texts: tuple[str, ...]
    tasks: tuple[PromptTask, ...]


@dataclass(frozen=True)
class EncodingDevice:
    """The resources of one Ray task, the kind of its device, and its torch threads."""

    kind: str
    cpus: float
    gpus: float
    threads: int


def split(tasks: Sequence[PromptTask], evaluation: EvaluationSettings, most: int) -> list[Share]:
    """Divide the batch's exemplars and its texts, without duplicates, into at most `most` shares of about equal size."""
    texts = list(dict.fromkeys(text for task in tasks for text in texts_of(task.entry, evaluation)))
    count = max(1, min(most, len(tasks), -(-len(texts) // TEXTS_PER_SHARE)))
    return [Share(tuple(texts[first::count]), tuple(tasks[first::count])) for first in range(count)]


def encode(
    spec: BaseSpec,
    share: Share,
    cache_storage: Storage | Path,
    device: str,
    threads: int,
    *,
    check: bool = False,
    judge: str | None = None,
    decisions: Decisions | None = None,
) -> None:
    """Encode one share into the cache; with `check`, check the transformer's weights first, with `decisions` the exemplars.

    Raises:
        UserError: The base's encoders, VAE or transformer cannot be used, or exemplars are not effective.
    """
    bound_threads(threads)
    if check:
        check_transformer(spec)
    cache = CountedCache(cache_storage, count_cache_read)
    if decisions is not None:
        require_effective(share.tasks, cache, decisions, judge)
    base = Base(spec, device=device, cache=cache)
    base.encode(share.texts)
    for task in share.tasks:
        with log_context(**task.log_fields):
            exemplars = task.load_exemplars(cache)
            for mirrored in (False, True)[: 1 + task.entry.hyperparameters.horizontal_flip]:
                exemplar_posterior(base, exemplars, mirrored=mirrored)


def start_encoding(
    spec: BaseSpec,
    tasks: Sequence[PromptTask],
    evaluation: EvaluationSettings,
    cache_storage: Storage,
    device: EncodingDevice,
    most: int,
    *,
    check: bool,
    decisions: Decisions | None = None,
) -> list[Any]:
    """Start at most `most` Ray tasks that encode the batch; returns references to wait for.

    Args:
        check: Whether the first task checks the transformer's weights before it encodes.
        decisions: Decisions about exemplars, with which they are checked; None: no check.
    """
    remote: Any = ray.remote(encode).options(num_cpus=device.cpus, num_gpus=device.gpus, max_retries=3)
    return [
        remote.remote(
            spec,
            share,
            cache_storage,
            device.kind,
            device.threads,
            check=check and number == 0,
            judge=evaluation.judge,
            decisions=decisions,
        )
        for number, share in enumerate(split(tasks, evaluation, most))
    ]
