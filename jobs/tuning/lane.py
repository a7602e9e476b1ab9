"""The lane policy of a search: each slot holds a trial, which is scored at its rungs while it trains. Imports no Ray.

At a rung a trial is sampled from its slot, in batches that it shares with other trials at a rung and with the base at the same
seeds; then its training continues. As for the gate, predictions tell of which guard prompts images are drawn, and the base
draws a text and seed once for all trials and prompts. A lane of a search has one worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from typing import Protocol

import torch
from torch import Tensor

from corrector.base import ContentCache, content_key
from corrector.drawing import predicted_shifts
from corrector.dreambooth.reports import exploded
from corrector.evaluation import Comparison
from corrector.evaluation.features import FeatureExtractor, named_extractor
from corrector.evaluation.images import as_stored, same_size
from corrector.evaluation.trial_score import ExemplarFeatures, SampleFeatures, trial_score
from corrector.prompt_inputs import comparison_rows, side_of
from corrector.prompts import EvaluationSettings, GateThresholds, SearchSettings
from corrector.record.search_results import RungReport
from corrector.sampling import SampleRow
from jobs.inputs.prompt_task import PromptTask
from jobs.lanes.lane import Lane, LanePolicy, Queue, RunningPrompt, store_checkpoint
from jobs.lanes.queue import Progress
from jobs.tuning.trials import Outcome, TrialFolder

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.1


class TrialSource(Queue, Protocol):
    """The methods of the queue that a lane of a search calls."""

    def deliver(self, work_id: str, report: RungReport) -> None:
        """Deliver a trial's score."""

    def closed(self, held: Iterable[str]) -> list[str]:
        """Those of these trials that must end now."""

    def is_complete(self) -> bool:
        """Whether no further trial will come."""


@dataclass(frozen=True)
class _Samples:
    """The images to sample for a trial's score from one slot: the trial's own, or slot 0 for the base.

    Attributes:
        comparison: Texts and seeds; a part of the protocol `evaluation`.
    """

    running: RunningPrompt
    slot: int
    evaluation: EvaluationSettings
    comparison: Comparison

    @property
    def whole(self) -> Comparison:
        """All that the protocol has."""
        return Comparison.of(self.running.task.entry, self.evaluation)


class TrialPolicy(LanePolicy):
    """Scores the trials of a lane at their rungs, and ends those that the search has closed."""

    def __init__(
        self, lane: Lane, queue: TrialSource, *, search: SearchSettings, gate: GateThresholds
    ) -> None:
        self._lane = lane
        self._queue = queue
        self._search = search
        self._gate = gate
        self._reports: dict[str, list[RungReport]] = {}

    def admitted(self, running: RunningPrompt) -> None:
        """Continue after the scores in the trial's journal."""
        name = running.task.work_id
        reports = self._reports[name] = TrialFolder.of(running.task).reports
        running.seconds = reports[-1].seconds if reports else 0.0
        for report in reports:  # a lane may have died between writing the last score and delivering it
            self._queue.deliver(name, report)
        if len(reports) == len(running.task.rungs):
            self._lane.engine.stop(name)
            self._finish(name)

    def before_step(self) -> None:
        """End closed trials and score those at a rung."""
        self._end_closed()
        self._score_due()

    def failed(self, running: RunningPrompt, reason: str) -> None:
        self._end(running, Outcome(state="failed", detail=reason))

    def no_active_slot(self) -> bool:
        """Wait for further trials; the lane ends when none will come."""
        self._lane.refill()  # scoring may have freed slots
        if self._lane.running:
            return True
        if self._queue.is_complete():
            return False
        time.sleep(IDLE_SECONDS)
        self._lane.report([], wait=True)
        return True

    @cached_property
    def _extractor(self) -> FeatureExtractor:
        return named_extractor(self._search.extractor)

    def _end_closed(self) -> None:
        lane = self._lane
        for name in self._queue.closed(list(lane.running)):
            running = lane.running[name]
            lane.engine.stop(name)
            lane.remove_failed()
            if name in lane.running:
                self._remove(name)
                self._end(running, Outcome(state="stopped"))

    def _due(self) -> list[RunningPrompt]:
        """The trials that are at a rung and have not been scored there."""
        due = []
        for name, running in self._lane.running.items():
            rung = len(self._reports[name])
            if self._lane.engine.steps_of(name) >= running.task.rungs[rung].steps:
                due.append(running)
        return due

    def _score_due(self) -> None:
        if not self._due():
            return
        engine = self._lane.engine
        engine.collect()
        self._lane.remove_failed()
        for running in self._due():
            reason = exploded(engine.history(running.task.work_id))
            if reason is not None:
                self._fail(running, reason)
        due = self._due()
        if not due:
            return
        started = time.monotonic()
        features = self._features(due)
        seconds = (time.monotonic() - started) / len(due)
        for running, (base, trial) in zip(due, features, strict=True):
            running.seconds += seconds
            self._score(running, base, trial)

    def _score(self, running: RunningPrompt, base: SampleFeatures, trial: SampleFeatures) -> None:
        """Score one trial, write and deliver the score, and release the trial after its last score."""
        task, engine = running.task, self._lane.engine
        name, reports, journal = task.work_id, self._reports[task.work_id], TrialFolder.of(task)
        try:
            exemplars = exemplar_features(
                task, side_of(task.entry, self._lane.base.spec), self._extractor, self._lane.cache
            )
            score = trial_score(base, trial, exemplars, self._search, self._gate)
        except ValueError as error:
            self._fail(running, str(error))
            return
        report = RungReport(
            rung=len(reports),
            steps=engine.steps_of(name),
            seconds=round(running.seconds, 2),
            score=score,
        )
        if store_checkpoint(engine.state_of(name), task.folder):
            engine.mark_saved(name)
        journal.add_report(report, trial)
        reports.append(report)
        self._queue.deliver(name, report)
        if len(reports) == len(task.rungs):
            self._finish(name)

    def _finish(self, name: str) -> None:
        """Release a trial after its last score."""
        self._lane.engine.release(name)
        del self._lane.running[name]
        self._lane.report([Progress(name, "sampled")], wait=True)

    def _fail(self, running: RunningPrompt, reason: str) -> None:
        self._lane.engine.stop(running.task.work_id)
        self._remove(running.task.work_id)
        self.failed(running, reason)

    def _remove(self, name: str) -> None:
        self._lane.engine.release(name)
        del self._lane.running[name]

    def _end(self, running: RunningPrompt, outcome: Outcome) -> None:
        """Record that a trial without a slot ended before its last rung."""
        TrialFolder.of(running.task).end(outcome)
        self._lane.report([Progress(running.task.work_id, outcome.state, detail=outcome.detail)], wait=True)

    def _features(self, due: Sequence[RunningPrompt]) -> list[tuple[SampleFeatures, SampleFeatures]]:
        """Features of base and trial for each of `due` at its rung; all trials share those of the base, which are cached."""
        cache = self._lane.cache
        trials = [self._trial_samples(running) for running in due]
        parts = [_base_samples(trial) for trial in trials]
        missing: dict[str, _Samples] = {}
        for part in chain.from_iterable(parts):
            if cache.get(self._base_key(part)) is None:
                missing.setdefault(self._base_key(part), part)
        images = self._sample([*missing.values(), *trials])
        for (key, _), sampled in zip(missing.items(), images, strict=False):
            cache.put(key, {"features": self._extractor(as_stored(sampled))})
        found = []
        for trial, base, sampled in zip(trials, parts, images[len(missing) :], strict=True):
            own, *guards = (self._base_features(part) for part in base)
            before = SampleFeatures(own, tuple(guards))
            found.append((before, self._extracted(trial, sampled, before)))
        return found

    def _trial_samples(self, running: RunningPrompt) -> _Samples:
        """What the trial draws at its rung: images of its prompt, and of the guard prompts whose predictions it moves."""
        task, lane = running.task, self._lane
        evaluation = task.rungs[len(self._reports[task.work_id])].evaluation
        whole, slot = Comparison.of(task.entry, evaluation), lane.engine.slot_of(task.work_id)
        if not whole.guards or not evaluation.stop_early:
            return _Samples(running, slot, evaluation, whole)
        shifts = predicted_shifts(
            task.entry.prompt,
            whole.guards,
            running.embeddings,
            lane.base,
            slot=slot,
            predict=partial(lane.predict, side=side_of(task.entry, lane.base.spec)),
        )
        moved = [shift.prompt for shift in shifts if shift.largest > self._gate.max_guard_shift]
        return _Samples(running, slot, evaluation, whole.part(len(whole.own), guards=moved))

    def _sample(self, wanted: Sequence[_Samples]) -> list[Tensor]:
        """The images `[N, 3, H, W]` of each of `wanted`; images of one size share batches."""
        lane = self._lane
        found: dict[int, Tensor] = {}
        for side in {self._side(samples) for samples in wanted}:
            group = [i for i, samples in enumerate(wanted) if self._side(samples) == side]
            rows: list[SampleRow] = []
            for i in group:
                each = wanted[i]
                rows += comparison_rows(
                    each.comparison, each.evaluation, each.running.embeddings, lane.base, slot=each.slot
                )
            images = lane.sample(rows, side)
            found |= zip(group, images.split([len(wanted[i].comparison) for i in group]), strict=True)
        return [found[i] for i in range(len(wanted))]

    def _extracted(self, trial: _Samples, images: Tensor, base: SampleFeatures) -> SampleFeatures:
        """Features of a trial's images; the base's stand for guard prompts that the trial does not move."""
        own, moved, _ = trial.comparison.split(as_stored(images))
        drawn = SampleFeatures.of(own, moved, self._extractor)
        changed = dict(zip([guard.prompt for guard in trial.comparison.guards], drawn.guards, strict=True))
        pairs = zip(trial.whole.guards, base.guards, strict=False)  # the base has none where nothing moved
        return replace(drawn, guards=tuple(changed.get(guard.prompt, before) for guard, before in pairs))

    def _base_features(self, samples: _Samples) -> Tensor:
        found = self._lane.cache.get(self._base_key(samples))
        assert found is not None, "sampled just now"
        return found["features"]

    def _side(self, samples: _Samples) -> int:
        return side_of(samples.running.task.entry, self._lane.base.spec)

    def _base_key(self, samples: _Samples) -> str:
        return content_key(
            "base features",
            self._lane.base.spec.identity,
            str(self._lane.settings.dtype),
            self._extractor.name,
            self._side(samples),
            str(samples.comparison.rows),
            samples.evaluation.model_dump_json(include={"num_inference_steps", "guidance_scale"}),
        )


def _base_samples(trial: _Samples) -> list[_Samples]:
    """What the base draws beside a trial: images of its prompt, and of every guard prompt if the trial moves any."""
    whole = trial.whole
    parts = [whole.part(len(whole.own))]
    if trial.comparison.guards:
        parts += [whole.part(0, guards=[guard.prompt]) for guard in whole.guards]
    return [replace(trial, slot=0, comparison=part) for part in parts]


def exemplar_features(
    task: PromptTask, side: int, extractor: FeatureExtractor, cache: ContentCache
) -> ExemplarFeatures:
    """The features of a prompt's exemplars as images of `side` pixels; computed once, then from the cache."""
    key = content_key("exemplar features", task.exemplars, extractor.name, side)
    found = cache.get(key)
    if found is None:
        size = torch.empty(0, 3, side, side)
        images = task.load_exemplars(cache)
        both = {"training": images.training, "held_out": images.held_out}
        found = {kind: extractor(as_stored(same_size(each, size))) for kind, each in both.items()}
        cache.put(key, found)
    return ExemplarFeatures(found["training"], found["held_out"])
