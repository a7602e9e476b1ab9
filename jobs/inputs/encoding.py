"""Encoding as its own stage: before any lane starts, the batch's texts and exemplars are encoded once, in parallel.

Each share of the work is a Ray task with a device of its own. It loads the text encoders, then the VAE, and never the
transformer; lanes load the transformer and never a text encoder. What is in the job's cache already is left alone, so a task
that is retried, or a batch that is submitted again, encodes only what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from corrector.base import BaseSpec, ContentCache, encode_prompts
from corrector.prompts import EvaluationSettings
from jobs.inputs.batch import PromptTask
from jobs.inputs.preparation import bound_threads, posterior_of, prompts_of
from jobs.inputs.ray_tasks import get_results

TEXTS_PER_SHARE = 64
"""Fewer are not worth loading the text encoders once more."""


@dataclass(frozen=True)
class Share:
    """What one task encodes: texts, and the exemplars of `tasks`."""

    texts: tuple[str, ...]
    tasks: tuple[PromptTask, ...]


@dataclass(frozen=True)
class EncodingDevice:
    """What one task asks of the cluster, and where it computes."""

    kind: str
    cpus: float
    gpus: float
    threads: int


def split(tasks: Sequence[PromptTask], evaluation: EvaluationSettings, most: int) -> list[Share]:
    """The batch's texts, each once, and its exemplars, in at most `most` shares of about equal size."""
    texts = list(dict.fromkeys(text for task in tasks for text in prompts_of(task.entry, evaluation)))
    count = max(1, min(most, len(tasks), -(-len(texts) // TEXTS_PER_SHARE)))
    return [Share(tuple(texts[first::count]), tuple(tasks[first::count])) for first in range(count)]


def encode(spec: BaseSpec, share: Share, cache_folder: Path, device: str, threads: int) -> None:
    """Encode one share into the cache, on `device`, with `threads` threads."""
    bound_threads(threads)
    cache = ContentCache(cache_folder)
    encode_prompts(spec, share.texts, cache=cache, device=device, dtype=spec.compute_dtype(device))
    for task in share.tasks:
        posterior_of(spec, task, cache, device)
        if task.entry.hyperparameters.horizontal_flip:
            posterior_of(spec, task, cache, device, mirrored=True)


def encode_batch(
    spec: BaseSpec,
    tasks: Sequence[PromptTask],
    evaluation: EvaluationSettings,
    cache_folder: Path,
    device: EncodingDevice,
    most: int,
) -> None:
    """Encode the batch in at most `most` tasks and wait for it: lanes would only encode the same once more.

    Raises :class:`UserError` where the base's encoders or VAE cannot be used.
    """
    remote = ray.remote(encode).options(num_cpus=device.cpus, num_gpus=device.gpus, max_retries=3)
    shares = split(tasks, evaluation, most)
    get_results([remote.remote(spec, share, cache_folder, device.kind, device.threads) for share in shares])
