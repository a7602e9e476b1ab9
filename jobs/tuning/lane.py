"""The lane policy of a search: each slot holds a trial, which is scored at its rungs while it trains. Imports no Ray.

At a rung a trial is sampled from its slot, in batches that it shares with other trials at a rung and with the base at the same
seeds; then its training continues. A lane of a search has one worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from corrector.base import ContentCache, content_key
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
from jobs.tuning.trials import Outcome, TrialFolder, from_tensors, to_tensors

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
    """The images to sample for a trial's score from one slot: the trial's own, or slot 0 for the base."""

    running: RunningPrompt
    slot: int
    evaluation: EvaluationSettings

    @property
    def comparison(self) -> Comparison:
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
        trials: list[_Samples] = []
        missing: dict[str, _Samples] = {}
        for running in due:
            name = running.task.work_id
            evaluation = running.task.rungs[len(self._reports[name])].evaluation
            trials.append(_Samples(running, self._lane.engine.slot_of(name), evaluation))
            base = _Samples(running, 0, evaluation)
            if cache.get(self._base_key(base)) is None:
                missing.setdefault(self._base_key(base), base)
        images = self._sample([*missing.values(), *trials])
        for (key, samples), sampled in zip(missing.items(), images, strict=False):
            cache.put(key, to_tensors(self._extracted(samples, sampled)))
        return [
            (self._base_features(samples), self._extracted(samples, sampled))
            for samples, sampled in zip(trials, images[len(missing) :], strict=True)
        ]

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

    def _extracted(self, samples: _Samples, images: Tensor) -> SampleFeatures:
        own, guards, _ = samples.comparison.split(as_stored(images))
        return SampleFeatures.of(own, guards, self._extractor)

    def _base_features(self, samples: _Samples) -> SampleFeatures:
        found = self._lane.cache.get(self._base_key(samples))
        assert found is not None, "sampled just now"
        return from_tensors(found)

    def _side(self, samples: _Samples) -> int:
        return side_of(samples.running.task.entry, self._lane.base.spec)

    def _base_key(self, samples: _Samples) -> str:
        guards = tuple((guard.prompt, guard.seeds) for guard in samples.comparison.guards)
        return content_key(
            "base features",
            self._lane.base.spec.identity,
            str(self._lane.settings.dtype),
            self._extractor.name,
            self._side(samples),
            str((samples.comparison.own, guards)),
            samples.evaluation.model_dump_json(include={"num_inference_steps", "guidance_scale"}),
        )


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
