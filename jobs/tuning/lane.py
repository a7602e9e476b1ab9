"""A lane of a search: its slots are trials, which it scores at their rungs while they train.

Knows no Ray. A trial is scored where it stands: its slot is sampled together with those of all others that have come to a
rung, beside the base at the same seeds, and goes on training. A lane of a search has one worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor

from corrector.base import BaseSpec, ContentCache, content_key
from corrector.dreambooth import FineTune, checkpoint
from corrector.dreambooth.reports import exploded
from corrector.evaluation.features import FeatureExtractor, named_extractor
from corrector.evaluation.images import as_stored, same_size
from corrector.evaluation.objective import ArmFeatures, ExemplarFeatures, trial_score
from corrector.prompts import EvaluationSettings, GateThresholds, SearchSettings
from corrector.record.search import RungReport
from corrector.sampling import SampleRow, sample_images
from jobs.inputs.batch import WorkItem
from jobs.inputs.preparation import exemplars_of
from jobs.lanes.arms import Arms
from jobs.lanes.lane import Held, Lane, LaneSettings, Queue
from jobs.lanes.queue import Progress
from jobs.tuning.trials import Outcome, TrialItem

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.1


class TrialSource(Queue, Protocol):
    """What a lane of a search needs of its queue beyond what every lane needs."""

    def deliver(self, work_id: str, report: RungReport) -> None:
        """Hand over a trial's score."""

    def closed(self, held: Iterable[str]) -> list[str]:
        """Which of these trials are to end now."""

    def is_complete(self) -> bool:
        """Whether no further trial will come."""


@dataclass(frozen=True)
class TrialLaneSettings(LaneSettings):
    """How a lane of a search works, and what its trials are scored by."""

    search: SearchSettings = field(kw_only=True)
    gate: GateThresholds = field(kw_only=True)


@dataclass(frozen=True)
class _Drawing:
    """One arm of one trial's score."""

    held: Held
    slot: int
    evaluation: EvaluationSettings

    @property
    def arms(self) -> Arms:
        return Arms.of(self.held.item.entry, self.evaluation)


class TrialLane(Lane):
    """Trains trials, scores them at their rungs, and ends those that the search has done with."""

    def __init__(self, spec: BaseSpec, queue: TrialSource, settings: TrialLaneSettings) -> None:
        super().__init__(spec, queue, settings)
        self._trials = queue
        self._objective = settings
        self._reports: dict[str, list[RungReport]] = {}

    def run(self) -> None:
        """Work until no trial is left or to come, or until the queue says stop: then every slot is saved."""
        while not self._stopping:
            self._refill()
            self._end_closed()
            self._score_due()
            if self._engine.active:
                self._advance()
                continue
            self._refill()  # slots may have become free just now
            if not self._training:
                if self._trials.is_complete():
                    return
                time.sleep(IDLE_SECONDS)
                self._report([], wait=True)
        self._engine.collect()
        self._take_out()
        self._save()

    @cached_property
    def _extractor(self) -> FeatureExtractor:
        return named_extractor(self._objective.search.extractor)

    def _admit(self, held: Held, task: FineTune, state: dict[str, Any] | None) -> None:
        super()._admit(held, task, state)
        name, item = held.item.work_id, _trial(held)
        reports = self._reports[name] = item.trial.reports
        held.training_seconds = reports[-1].seconds if reports else 0.0
        for report in reports:  # a lane that died may not have come to hand over the last
            self._trials.deliver(name, report)
        if len(reports) == len(item.rungs):
            self._engine.stop(name)
            self._finish(name)

    def _take_out(self) -> None:
        """Take what failed out of the pack; a trial that is through waits for its last score."""
        while self._engine.failures:
            failure = self._engine.failures.pop(0)
            self._fail(self._training[failure.name], failure.reason)

    def _end_closed(self) -> None:
        for name in self._trials.closed(list(self._training)):
            held = self._training[name]
            self._engine.stop(name)
            self._take_out()
            if name in self._training:
                self._engine.release(name)
                self._end(held, Outcome(state="stopped"))

    def _due(self) -> list[Held]:
        """The trials that stand at a rung and have not been scored there."""
        due = []
        for name, held in self._training.items():
            rung = len(self._reports[name])
            if self._engine.steps_of(name) >= _trial(held).rungs[rung].steps:
                due.append(held)
        return due

    def _score_due(self) -> None:
        if not self._due():
            return
        self._engine.collect()
        self._take_out()
        for held in self._due():
            reason = exploded(self._engine.history(held.item.work_id))
            if reason is not None:
                self._engine.stop(held.item.work_id)
                self._engine.release(held.item.work_id)
                self._fail(held, reason)
        due = self._due()
        if not due:
            return
        started = time.monotonic()
        features = self._features(due)
        seconds = (time.monotonic() - started) / len(due)
        for held, (base, trial) in zip(due, features, strict=True):
            held.training_seconds += seconds
            self._score(held, base, trial)

    def _score(self, held: Held, base: ArmFeatures, trial: ArmFeatures) -> None:
        """Score one trial, keep and hand over the score, and release it after its last."""
        name, item = held.item.work_id, _trial(held)
        reports, settings = self._reports[name], self._objective
        rung = item.rungs[len(reports)]
        try:
            exemplars = self._exemplar_features(held)
            score = trial_score(base, trial, exemplars, settings.search, settings.gate, rung.evaluation)
        except ValueError as error:
            self._engine.stop(name)
            self._engine.release(name)
            self._fail(held, str(error))
            return
        report = RungReport(
            rung=len(reports),
            steps=self._engine.steps_of(name),
            seconds=round(held.training_seconds, 2),
            score=score,
        )
        checkpoint.write_state(self._engine.state_of(name), item.trial.checkpoint)
        item.trial.add_report(report, trial)
        reports.append(report)
        self._trials.deliver(name, report)
        if len(reports) == len(item.rungs):
            self._finish(name)

    def _finish(self, name: str) -> None:
        """Let a trial go after its last score."""
        self._engine.release(name)
        del self._training[name]
        self._report([Progress(name, "sampled")], wait=True)

    def _fail(self, held: Held, reason: str) -> None:
        self._end(held, Outcome(state="failed", detail=reason))

    def _end(self, held: Held, outcome: Outcome) -> None:
        """Let a trial whose slot is free go, short of its last rung."""
        item = _trial(held)
        item.trial.end(outcome)
        del self._training[item.work_id]
        self._report([Progress(item.work_id, outcome.state, detail=outcome.detail)], wait=True)

    def _features(self, due: Sequence[Held]) -> list[tuple[ArmFeatures, ArmFeatures]]:
        """Base and trial of each of `due` at its rung; the base's are the same for all trials of a prompt, and kept."""
        drawings: list[_Drawing] = []
        missing: dict[str, _Drawing] = {}
        for held in due:
            name = held.item.work_id
            evaluation = _trial(held).rungs[len(self._reports[name])].evaluation
            drawings.append(_Drawing(held, self._engine.slot_of(name), evaluation))
            base = _Drawing(held, 0, evaluation)
            if self._cache.get(self._base_key(base)) is None:
                missing.setdefault(self._base_key(base), base)
        images = self._draw([*missing.values(), *drawings])
        for (key, drawing), drawn in zip(missing.items(), images, strict=False):
            found = self._extracted(drawing, drawn)
            guards = {f"guard-{index:03d}": each for index, each in enumerate(found.guards)}
            self._cache.put(key, {"own": found.own, **guards})
        return [
            (self._base_features(drawing), self._extracted(drawing, drawn))
            for drawing, drawn in zip(drawings, images[len(missing) :], strict=True)
        ]

    def _draw(self, drawings: Sequence[_Drawing]) -> list[Tensor]:
        """The images `[N, 3, H, W]` of each drawing; those of one size in shared batches."""
        found: dict[int, Tensor] = {}
        sides = {self._side(drawing.held) for drawing in drawings}
        for side in sides:
            group = [i for i, drawing in enumerate(drawings) if self._side(drawing.held) == side]
            rows: list[SampleRow] = []
            for i in group:
                each = drawings[i]
                rows += each.arms.rows(each.slot, self._spec, each.evaluation, each.held.embeddings)
            images = sample_images(
                self._transformer,
                self._vae,
                self._engine.bank,
                self._scheduler,
                rows,
                height=side,
                width=side,
                batch_rows=self._settings.images_at_once,
            ).cpu()
            found |= zip(group, images.split([len(drawings[i].arms) for i in group]), strict=True)
        return [found[i] for i in range(len(drawings))]

    def _extracted(self, drawing: _Drawing, images: Tensor) -> ArmFeatures:
        own, guards, _ = drawing.arms.split(as_stored(images))
        return ArmFeatures.of(own, guards, self._extractor)

    def _base_features(self, drawing: _Drawing) -> ArmFeatures:
        found = self._cache.get(self._base_key(drawing))
        assert found is not None, "drawn just now"
        guards = sorted(key for key in found if key != "own")
        return ArmFeatures(found["own"], tuple(found[key] for key in guards))

    def _base_key(self, drawing: _Drawing) -> str:
        arms, settings = drawing.arms, self._settings
        return content_key(
            "base features",
            self._spec.identity,
            str(settings.dtype),
            self._extractor.name,
            self._side(drawing.held),
            str((arms.own, arms.guards)),
            drawing.evaluation.model_dump_json(include={"num_inference_steps", "guidance_scale"}),
        )

    def _exemplar_features(self, held: Held) -> ExemplarFeatures:
        return exemplar_features(held.item, self._side(held), self._extractor, self._cache)


def exemplar_features(
    item: WorkItem, side: int, extractor: FeatureExtractor, cache: ContentCache
) -> ExemplarFeatures:
    """The features of a prompt's exemplars as images of `side` pixels, extracted once and kept."""
    key = content_key("exemplar features", item.exemplars, extractor.name, side)
    found = cache.get(key)
    if found is None:
        size = torch.empty(0, 3, side, side)
        images = exemplars_of(item, cache)
        found = {kind: extractor(as_stored(same_size(each, size))) for kind, each in images.items()}
        cache.put(key, found)
    return ExemplarFeatures(found["training"], found["held_out"])


def _trial(held: Held) -> TrialItem:
    assert isinstance(held.item, TrialItem), "a lane of a search is given trials"
    return held.item
