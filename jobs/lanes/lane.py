"""A lane: one loaded base that trains a pack of fine-tunes, with prompts from the job's queue. Imports no Ray.

A lane refills its slots from the queue when they become free, advances all of them by one step at a time, and writes a
checkpoint per prompt, so that any lane can resume it. Its policy does the rest: a correction samples trained prompts
(`jobs.correction.sampling`), a search scores trials while they train (`jobs.tuning.lane`).

All workers of a lane run this code. Only rank 0 calls the queue and writes checkpoints; it broadcasts the queue's answers and
its clock's decisions, so that all workers take the same steps.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from corrector.base import BaseSpec, TextEmbeddings
from corrector.dreambooth import Engine, FineTune, Workers, checkpoint
from corrector.errors import UserError
from corrector.loaded_base import Base
from corrector.prompt_inputs import ExemplarImages, fine_tune, texts_of
from corrector.prompts import EvaluationSettings, GateThresholds
from corrector.sampling import SampleRow
from corrector.storage import DamagedFolderError, Storage
from jobs.inputs.counted_cache import CountedCache
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import PromptFolder
from jobs.lanes.queue import Progress
from jobs.lanes.worker_group import WorkerGroup
from jobs.log_context import log_context

logger = logging.getLogger(__name__)


class Queue(Protocol):
    """The methods of the queue that a lane calls."""

    def claim(self, count: int, *, max_rank: int) -> list[PromptTask]:
        """Lease up to `count` prompts."""

    def report(self, progress: Iterable[Progress], *, wait: bool = False) -> bool:
        """Report progress; returns whether to stop. Without `wait` it may return the answer to the call before."""


class LanePolicy(ABC):
    """What a lane does with its prompts besides training them."""

    def slots_in_use(self) -> int:
        """Slots that the policy uses; the lane claims fewer prompts by this number."""
        return 0

    def admitted(self, running: RunningPrompt) -> None:  # noqa: B027 # a hook
        """Called when a prompt has a slot, before its next step."""

    def before_step(self) -> None:  # noqa: B027
        """Called before each step, with all free slots refilled."""

    def after_step(self) -> None:  # noqa: B027
        """Called after each step, with failed prompts removed."""

    @abstractmethod
    def failed(self, running: RunningPrompt, reason: str) -> None:
        """Called for a prompt whose fine-tune failed and has lost its slot."""

    @abstractmethod
    def no_active_slot(self) -> bool:
        """Called when no slot can make a step; returns whether the lane goes on."""


class LaneObserver:
    """Called by a lane, for metrics; a method must neither block nor raise. This one does nothing."""

    def busy(self, slots: int) -> None:
        """`slots` slots hold a prompt."""

    def stepped(self, fine_tunes: int) -> None:
        """This number of fine-tunes made a step."""

    def sampled(self, images: int) -> None:
        """This worker sampled this number of images."""

    def saved(self) -> None:
        """All prompts of the lane have a new checkpoint."""

    def cache_read(self, hit: bool) -> None:
        """The content cache was read; `hit`: the entry was there."""


PolicyFactory = Callable[["Lane", Any], LanePolicy]
"""Makes the policy of a lane, given its queue too."""


@dataclass(frozen=True)
class LaneSettings:
    """Settings of a lane. `dtype` is the base's; LoRA weights and optimiser state are always fp32."""

    slots: int
    rank: int
    cache: Storage | Path
    evaluation: EvaluationSettings
    gate: GateThresholds = field(default_factory=GateThresholds)
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    tokens_per_forward: int | None = None
    checkpointing: bool = False
    offload: bool = False
    compile: bool = False
    images_at_once: int = 32
    report_every: int = 5
    checkpoint_seconds: float = 20.0
    report_seconds: float = 1.0


@dataclass
class RunningPrompt:
    """A prompt that holds a slot, with the inputs for sampling it."""

    task: PromptTask
    embeddings: dict[str, TextEmbeddings]
    exemplars: ExemplarImages
    seconds: float = 0.0
    """Its part of the lane's time so far."""
    slot: int = 0


class Lane:
    """Loads the base's transformer and VAE once, and works until the queue has no prompt for it.

    Attributes:
        running: The prompts that hold a slot, by work id.
    """

    def __init__(
        self,
        spec: BaseSpec,
        queue: Queue,
        settings: LaneSettings,
        policy: PolicyFactory,
        workers: WorkerGroup | None = None,
        observer: LaneObserver | None = None,
    ) -> None:
        """`workers`: default: the worker group of this process; only rank 0 calls `queue`."""
        self.settings = settings
        self.workers = workers or WorkerGroup()
        self._observer = observer or LaneObserver()
        self.cache = CountedCache(settings.cache, self._observer.cache_read)
        self.base = Base(
            spec, device=settings.device, dtype=settings.dtype, offload=settings.offload, cache=self.cache
        )
        self._queue = queue
        self.engine = Engine(
            self.base.transformer,
            self.base.scheduler,
            slots=settings.slots,
            rank=settings.rank,
            base_revision=spec.revision,
            report_every=settings.report_every,
            tokens_per_forward=settings.tokens_per_forward,
            checkpointing=settings.checkpointing,
            compile=settings.compile,
            workers=Workers(self.workers.rank, self.workers.size) if self.workers.size > 1 else None,
            device=self.base.device,
        )
        self.running: dict[str, RunningPrompt] = {}
        self._stopping = False
        self._reported = self._saved = time.monotonic()
        self._policy = policy(self, queue)

    def run(self) -> None:
        """Work until no prompt is left or the queue says stop; in the latter case, save all slots before returning."""
        while not self._stopping:
            self.refill()
            self._policy.before_step()
            self._observer.busy(len(self.running) + self._policy.slots_in_use())
            if self.engine.active:
                self._advance()
            elif not self._policy.no_active_slot():
                return
        self.engine.collect()
        self.remove_failed()
        self._policy.after_step()
        self._save()

    def refill(self) -> None:
        wanted = min(len(self.engine.free_slots), self.settings.slots - self._policy.slots_in_use())
        if wanted < 1:
            return
        claimed: list[PromptTask] = []
        if self.workers.rank == 0:
            claimed = self._queue.claim(wanted, max_rank=self.settings.rank)
        for task in self.workers.broadcast(claimed):
            with log_context(**task.log_fields):
                try:
                    self._admit(*self._read(task))
                except (UserError, ValueError) as error:
                    logger.warning("%s: %s", task.entry.name, error)
                    self.report([Progress(task.work_id, "failed", detail=str(error))])

    def _read(self, task: PromptTask) -> tuple[RunningPrompt, FineTune, dict[str, Any] | None]:
        """The prompt's inputs, fine-tune and checkpoint: rank 0 reads and broadcasts them to all workers."""
        outcome: tuple[RunningPrompt, FineTune, dict[str, Any] | None] | Exception | None = None
        if self.workers.rank == 0:
            try:
                embeddings = self.base.encode(texts_of(task.entry, self.settings.evaluation))
                exemplars = task.load_exemplars(self.cache)
                prepared = fine_tune(
                    task.entry,
                    exemplars,
                    embeddings,
                    self.base,
                    name=task.work_id,
                    bank=self.engine.bank,
                    batch_rows=self.settings.images_at_once,
                )
                outcome = RunningPrompt(task, embeddings, exemplars), prepared, self._checkpoint(task)
            except (UserError, ValueError) as error:
                outcome = error
        outcome = self.workers.broadcast(outcome)
        if outcome is None or isinstance(outcome, Exception):
            raise outcome or ValueError(f"{task.entry.name}: the lane's leader read nothing")
        return outcome

    def _checkpoint(self, task: PromptTask) -> dict[str, Any] | None:
        """The prompt's checkpoint; None where there is none, or it cannot be read."""
        folder = task.folder.checkpoint
        try:
            is_stored = folder.fetch()
        except DamagedFolderError as error:
            logger.warning("%s: starts again: %s", task.entry.name, error)
            return None
        except UserError as error:  # S3 does not answer: this lane ends, and the checkpoint stays
            raise OSError(str(error)) from error
        try:
            return checkpoint.read_state(folder.path) if is_stored else None
        except UserError as error:
            logger.warning("%s: starts again: %s", task.entry.name, error)
            return None

    def _admit(self, running: RunningPrompt, prepared: FineTune, state: dict[str, Any] | None) -> None:
        """Resume from `state`; start from the beginning where it is None or does not fit."""
        resumed = False
        if state is not None:
            try:
                checkpoint.resume_state(self.engine, state, running.task.folder.checkpoint.path)
                resumed = True
            except UserError as error:
                logger.warning("%s: starts again: %s", running.task.entry.name, error)
        if not resumed:
            self.engine.admit(prepared)
        name = running.task.work_id
        self.running[name] = running
        running.slot = self.engine.slot_of(name)
        with log_context(slot=running.slot):
            logger.info("%s: has a slot, at step %d", running.task.entry.name, self.engine.steps_of(name))
        self._policy.admitted(running)

    def _advance(self) -> None:
        """Train all slots by one step; save and report when it is time."""
        started = time.monotonic()
        self._observer.stepped(len(self.engine.active))
        self.engine.step()
        now = time.monotonic()
        for running in self.running.values():
            running.seconds += (now - started) / len(self.running)
        save, report = self.workers.broadcast(
            (
                now - self._saved > self.settings.checkpoint_seconds,
                now - self._reported > self.settings.report_seconds,
            )
        )
        if save or report:
            self.engine.collect()
        self.remove_failed()
        self._policy.after_step()
        if save:
            self._save()
        if report:
            self.report([self._progress(running) for running in self.running.values()])

    def remove_failed(self) -> None:
        while self.engine.failures:
            failure = self.engine.failures.pop(0)
            running = self.running.pop(failure.name)
            with log_context(**running.task.log_fields, slot=running.slot):
                logger.warning("%s: %s", running.task.entry.name, failure.reason)
                self._policy.failed(running, failure.reason)

    def _save(self) -> None:
        are_stored = True
        for name, running in self.running.items():
            state = self.engine.state_of(name)
            if self.workers.rank == 0 and not store_checkpoint(state, running.task.folder):
                are_stored = False
                continue
            self.engine.mark_saved(name)
        self._saved = time.monotonic()
        if are_stored:
            self._observer.saved()

    def sample(
        self, rows: list[SampleRow], side: int, progress: Callable[[int], None] | None = None
    ) -> torch.Tensor:
        """Images [N, 3, side, side] of `rows`, in shared batches, on the CPU."""
        at_once = self.settings.images_at_once
        self._observer.sampled(len(rows))
        return self.base.sample_rows(
            rows, self.engine.bank, height=side, width=side, batch_rows=at_once, progress=progress
        )

    def predict(self, rows: list[SampleRow], side: int) -> torch.Tensor:
        """Normalised latents [N, C, h, w] of `rows` for images of `side` pixels, in shared batches, on the CPU."""
        at_once = self.settings.images_at_once
        return self.base.sample_latents(rows, self.engine.bank, height=side, width=side, batch_rows=at_once)

    def report_sampling(self, names: Iterable[str], total: int, done: int) -> None:
        """Report how many images of `sample` are done; rank 0 reports its own part only."""
        if self.workers.rank == 0 and time.monotonic() - self._reported > self.settings.report_seconds:
            detail = f"{done}/{total} images"
            progress = [Progress(name, "sampling", detail=detail) for name in names]
            self._stopping = self._queue.report(progress) or self._stopping
            self._reported = time.monotonic()

    def _progress(self, running: RunningPrompt) -> Progress:
        name, steps = running.task.work_id, running.task.entry.hyperparameters.steps
        history = self.engine.history(name)
        if not history:
            return Progress(name, "training", steps=steps)
        return Progress(name, "training", history[-1].step, steps, history[-1].loss)

    def report(self, progress: list[Progress], *, wait: bool = False) -> None:
        """Report to the queue, and stop if it says so; all workers call this."""
        stop = self.workers.rank == 0 and (self._queue.report(progress, wait=wait) or self._stopping)
        self._stopping = self.workers.broadcast(stop)
        self._reported = time.monotonic()


def store_checkpoint(state: dict[str, Any], folder: PromptFolder) -> bool:
    """Write a fine-tune's state into `folder`; returns whether it is stored, which may fail for a while on S3."""
    checkpoint.write_state(state, folder.checkpoint.path)
    try:
        folder.checkpoint.store()
    except UserError as error:
        logger.warning("a checkpoint was not stored: %s", error)
        return False
    return True
