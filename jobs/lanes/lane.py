"""A lane: one loaded base that advances a pack of fine-tunes, fed from the job's queue.

Knows no Ray: the queue is anything with `claim` and `report`. `jobs.lanes.ray_train` runs a lane inside a Ray Train worker.

A lane trains until its pack is empty, refilling slots from the queue as they come free, and then samples both arms of all that
it trained in shared batches. Every prompt has a checkpoint of its own, so any lane can go on with it.

Where a lane has several workers, each runs this same code. The leader alone talks to the queue and writes checkpoints; what it
is told, and what its clock says, it shares, so that all workers take the same steps.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from corrector.adapters import Adapter
from corrector.base import (
    BaseSpec,
    ContentCache,
    LatentPosterior,
    TextEmbeddings,
    decode_latents,
    encode_images,
    load_scheduler,
    load_transformer,
    load_vae,
)
from corrector.dreambooth import Engine, FineTune, Workers, checkpoint
from corrector.errors import UserError
from corrector.prompts import EvaluationSettings
from corrector.sampling import SampleRow, sample_images, sample_latents
from jobs.inputs.batch import WorkItem
from jobs.inputs.preparation import NEGATIVE_PROMPT, embeddings_of, exemplars_of, posterior_of
from jobs.inputs.run_folder import PromptFolder
from jobs.lanes.arms import Arms, write_sampled
from jobs.lanes.queue import Progress
from jobs.lanes.worker_group import SingleWorker, WorkerGroup

logger = logging.getLogger(__name__)


class Queue(Protocol):
    """What a lane needs of the queue."""

    def claim(self, count: int, *, max_rank: int) -> list[WorkItem]:
        """Lease up to `count` prompts."""

    def report(self, progress: Iterable[Progress], *, wait: bool = False) -> bool:
        """Tell where prompts stand; returns whether to stop. Without `wait` the answer may be that of the call before."""


@dataclass(frozen=True)
class LaneSettings:
    """How a lane works. `dtype` is the base's; LoRA weights and optimiser state are always fp32."""

    slots: int
    rank: int
    cache: Path
    evaluation: EvaluationSettings
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
class Held:
    """A prompt that this lane holds."""

    item: WorkItem
    embeddings: dict[str, TextEmbeddings]
    exemplars: dict[str, torch.Tensor]
    curve: list[dict[str, Any]] = field(default_factory=list)
    training_seconds: float = 0.0
    adapter: Adapter | None = None

    @property
    def folder(self) -> PromptFolder:
        return PromptFolder(Path(self.item.folder))


class Lane:
    """Loads the base's transformer and VAE once and works until the queue has nothing for it."""

    def __init__(
        self, spec: BaseSpec, queue: Queue, settings: LaneSettings, workers: WorkerGroup | None = None
    ) -> None:
        """`workers` is None for a lane of one worker; `queue` is the leader's to use, the others' is never called."""
        self._spec = spec
        self._queue = queue
        self._settings = settings
        self._workers = workers or SingleWorker()
        self._cache = ContentCache(settings.cache)
        self._transformer = load_transformer(
            spec, dtype=settings.dtype, device=settings.device, offload=settings.offload
        )
        self._vae = load_vae(spec, device=settings.device)
        self._scheduler = load_scheduler(spec)
        self._engine = Engine(
            self._transformer,
            self._scheduler,
            slots=settings.slots,
            rank=settings.rank,
            base_revision=spec.revision,
            report_every=settings.report_every,
            tokens_per_forward=settings.tokens_per_forward,
            checkpointing=settings.checkpointing,
            compile=settings.compile,
            workers=Workers(self._workers.rank, self._workers.size) if self._workers.size > 1 else None,
            device=settings.device,
        )
        self._training: dict[str, Held] = {}
        self._trained: dict[str, Held] = {}
        self._stopping = False
        self._reported = self._saved = time.monotonic()

    def run(self) -> None:
        """Work until nothing is left, or until the queue says stop: then every slot is saved before this returns."""
        while not self._stopping:
            self._refill()
            if self._training:
                self._advance()
            elif self._trained:
                self._sample()
            else:
                return
        self._engine.collect()
        self._take_out()
        self._save()

    def _refill(self) -> None:
        wanted = min(len(self._engine.free_slots), self._settings.slots - len(self._trained))
        if wanted < 1:
            return
        leader, most = self._workers.rank == 0, self._settings.rank
        for item in self._workers.broadcast(self._queue.claim(wanted, max_rank=most) if leader else []):
            try:
                self._admit(*self._read(item))
            except (UserError, ValueError) as error:
                logger.warning("%s: %s", item.entry.name, error)
                self._report([Progress(item.work_id, "failed", detail=str(error))])

    def _read(self, item: WorkItem) -> tuple[Held, FineTune, dict[str, Any] | None]:
        """What it takes to begin, or to go on: the leader reads it all, so that no worker can see something else."""
        outcome: tuple[Held, FineTune, dict[str, Any] | None] | Exception | None = None
        if self._workers.rank == 0:
            try:
                held = self._hold(item)
                outcome = held, self._task(held), self._checkpoint(held)
            except (UserError, ValueError) as error:
                outcome = error
        outcome = self._workers.broadcast(outcome)
        if outcome is None or isinstance(outcome, Exception):
            raise outcome or ValueError(f"{item.entry.name}: the lane's leader read nothing")
        return outcome

    def _hold(self, item: WorkItem) -> Held:
        evaluation, dtype = self._settings.evaluation, self._settings.dtype
        embeddings = embeddings_of(self._spec, item.entry, evaluation, self._cache, dtype)
        return Held(item, embeddings, exemplars_of(item, self._cache))

    def _task(self, held: Held) -> FineTune:
        item, hyper, embeddings = held.item, held.item.entry.hyperparameters, held.embeddings
        posterior = partial(posterior_of, self._spec, item, self._cache, self._settings.device)
        guards = item.entry.guard_prompts if hyper.preservation == "guard" else ()
        prior = item.entry.class_prompt if hyper.preservation == "prior" else None
        return FineTune(
            name=item.work_id,
            posterior=posterior(),
            prompt=embeddings[item.entry.prompt],
            guards=TextEmbeddings.cat([embeddings[text] for text in guards]) if guards else None,
            class_prompt=None if prior is None else embeddings[prior],
            class_posterior=None if prior is None else self._class_images(held, embeddings[prior]),
            hyperparameters=hyper,
            mirrored_posterior=posterior(mirrored=True) if hyper.horizontal_flip else None,
        )

    def _checkpoint(self, held: Held) -> dict[str, Any] | None:
        """The prompt's own checkpoint, where there is one that can be read."""
        if not checkpoint.exists(held.folder.checkpoint):
            return None
        try:
            return checkpoint.read_state(held.folder.checkpoint)
        except UserError as error:
            logger.warning("%s: starts again: %s", held.item.entry.name, error)
            return None

    def _admit(self, held: Held, task: FineTune, state: dict[str, Any] | None) -> None:
        """Go on from `state`, or begin where there is none or it is of no use."""
        resumed = False
        if state is not None:
            try:
                checkpoint.resume_state(self._engine, state, held.folder.checkpoint)
                resumed = True
            except UserError as error:
                logger.warning("%s: starts again: %s", held.item.entry.name, error)
        if not resumed:
            self._engine.admit(task)
        self._training[held.item.work_id] = held

    def _class_images(self, held: Held, prompt: TextEmbeddings) -> LatentPosterior:
        """The base's own latents of the class prompt, for classic prior preservation."""
        hyper = held.item.entry.hyperparameters
        side = self._side(held)
        rows = [
            SampleRow(
                prompt=prompt,
                negative=held.embeddings[NEGATIVE_PROMPT],
                slot=0,
                seed=hyper.seed + index,
                num_inference_steps=self._spec.num_inference_steps,
                guidance_scale=self._spec.guidance_scale,
            )
            for index in range(hyper.class_images)
        ]
        latents = sample_latents(
            self._transformer,
            self._engine.bank,
            self._scheduler,
            rows,
            height=side,
            width=side,
            vae_scale_factor=self._spec.vae_scale_factor,
            batch_rows=self._settings.images_at_once,
        ).cpu()
        return LatentPosterior(mean=latents, std=torch.zeros_like(latents))

    def _advance(self) -> None:
        """One step of every slot, and what follows from it."""
        started = time.monotonic()
        self._engine.step()
        now = time.monotonic()
        for held in self._training.values():
            held.training_seconds += (now - started) / len(self._training)
        save, report = self._workers.broadcast(
            (
                now - self._saved > self._settings.checkpoint_seconds,
                now - self._reported > self._settings.report_seconds,
            )
        )
        if save or report:
            self._engine.collect()
        self._take_out()
        if save:
            self._save()
        if report:
            self._report([self._where(held) for held in self._training.values()])

    def _take_out(self) -> None:
        """Take what failed and what is through out of the pack."""
        while self._engine.failures:
            failure = self._engine.failures.pop(0)
            self._training.pop(failure.name)
            self._report([Progress(failure.name, "failed", detail=failure.reason)])
        for name in self._engine.finished:
            held = self._training.pop(name)
            held.curve = [asdict(report) for report in self._engine.history(name)]
            held.adapter = self._engine.release(name)
            self._trained[name] = held

    def _save(self) -> None:
        for name, held in self._training.items():
            state = self._engine.state_of(name)
            if self._workers.rank == 0:
                checkpoint.write_state(state, held.folder.checkpoint)
        self._saved = time.monotonic()

    def _sample(self) -> None:
        """Sample both arms of all trained prompts in shared batches, and leave the pictures in their folders.

        The workers divide the prompts among themselves.
        """
        evaluation, bank = self._settings.evaluation, self._engine.bank
        by_side: dict[int, list[Held]] = {}
        for held in list(self._trained.values())[self._workers.rank :: self._workers.size]:
            by_side.setdefault(self._side(held), []).append(held)
        for side, group in by_side.items():
            started = time.monotonic()
            arms = [Arms.of(held.item.entry, evaluation) for held in group]
            rows: list[SampleRow] = []
            for slot, (held, arm) in enumerate(zip(group, arms, strict=True), start=1):
                assert held.adapter is not None
                bank.load(slot, held.adapter)
                for index in (0, slot):
                    rows += arm.rows(index, self._spec, evaluation, held.embeddings)
            images = sample_images(
                self._transformer,
                self._vae,
                bank,
                self._scheduler,
                rows,
                height=side,
                width=side,
                batch_rows=self._settings.images_at_once,
                progress=partial(self._sampling, len(rows)),
            ).cpu()
            seconds = (time.monotonic() - started) / len(group)
            parts = iter(images.split([len(arm) for arm in arms for _ in range(2)]))
            for slot, (held, arm) in enumerate(zip(group, arms, strict=True), start=1):
                bank.unload(slot)
                self._deliver(held, arm, next(parts), next(parts), seconds)
        self._workers.all_gather(None)  # until everybody's pictures are there
        self._report([Progress(name, "sampled") for name in self._trained], wait=True)
        self._trained.clear()

    def _deliver(
        self, held: Held, arms: Arms, before: torch.Tensor, after: torch.Tensor, seconds: float
    ) -> None:
        assert held.adapter is not None
        write_sampled(
            held.folder,
            arms,
            adapter=held.adapter,
            exemplars=held.exemplars,
            decoded={key: self._decoded(images) for key, images in held.exemplars.items()},
            before=before,
            after=after,
            curve=held.curve,
            seconds={"training": held.training_seconds, "sampling": seconds},
        )

    def _decoded(self, images: torch.Tensor) -> torch.Tensor:
        """Exemplars as the base's VAE draws them, on the CPU."""
        latents = encode_images(self._vae, images.to(self._vae.device)).mean
        return decode_latents(self._vae, latents).cpu()

    def _sampling(self, total: int, done: int) -> None:
        """Tell how far the leader is with its share; the others have theirs."""
        if self._workers.rank == 0 and time.monotonic() - self._reported > self._settings.report_seconds:
            detail = f"{done}/{total} images"
            progress = [Progress(name, "sampling", detail=detail) for name in self._trained]
            self._stopping = self._queue.report(progress) or self._stopping
            self._reported = time.monotonic()

    def _where(self, held: Held) -> Progress:
        """Where a prompt in training stands."""
        name, steps = held.item.work_id, held.item.entry.hyperparameters.steps
        history = self._engine.history(name)
        if not history:
            return Progress(name, "training", steps=steps)
        return Progress(name, "training", history[-1].step, steps, history[-1].loss)

    def _report(self, progress: list[Progress], *, wait: bool = False) -> None:
        """Tell the queue where prompts stand, and all workers whether to stop; every worker calls this."""
        stop = self._workers.rank == 0 and (self._queue.report(progress, wait=wait) or self._stopping)
        self._stopping = self._workers.broadcast(stop)
        self._reported = time.monotonic()

    def _side(self, held: Held) -> int:
        """Width and height of a prompt's images in pixels."""
        return held.item.entry.hyperparameters.resolution or self._spec.resolution
