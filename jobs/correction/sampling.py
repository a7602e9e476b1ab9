"""The lane policy of a correction: base and corrected images of every trained prompt, in `sampled/` of its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from corrector.adapters import Adapter
from corrector.cost import CorrectionCost
from corrector.drawing import Candidate, draw
from corrector.evaluation import Assessment, Comparison, Exemplars, FeatureMemory
from corrector.evaluation.comparison import NegativeSamples
from corrector.evaluation.scorecard import Look
from corrector.evaluation.scorecard_parts import PredictionShift
from corrector.evaluation.verdicts import named_judge
from corrector.files import staging_folder
from corrector.prompt_inputs import decoded_exemplars, side_of
from corrector.prompts import EvaluationSettings
from corrector.record.writing import write_comparison
from corrector.sampling import SampleRow
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import SAMPLED_FILE, PromptFolder
from jobs.lanes.lane import Lane, LanePolicy, RunningPrompt
from jobs.lanes.queue import Progress

DECODED_FILE = "decoded.safetensors"
"""The exemplars encoded and decoded by the base's VAE, which the check for copies compares with."""
FEATURES_FILE = "features.safetensors"
"""What the networks said of all images while they were drawn."""


@dataclass(frozen=True)
class _Trained:
    """A prompt whose fine-tune has ended, until it is sampled."""

    running: RunningPrompt
    adapter: Adapter
    curve: list[dict[str, Any]]


class CorrectionPolicy(LanePolicy):
    """Samples all trained prompts of a lane in shared batches when its pack is empty, and writes them to their folders."""

    def __init__(self, lane: Lane, queue: object) -> None:
        self._lane = lane
        self._judge = named_judge(lane.settings.evaluation.judge)
        self._trained: dict[str, _Trained] = {}

    def slots_in_use(self) -> int:
        """The number of trained prompts: each needs a slot of the bank when it is sampled."""
        return len(self._trained)

    def after_step(self) -> None:
        """Take the finished fine-tunes out of the pack."""
        lane = self._lane
        for name in lane.engine.finished:
            curve = [asdict(report) for report in lane.engine.history(name)]
            self._trained[name] = _Trained(lane.running.pop(name), lane.engine.release(name), curve)

    def failed(self, running: RunningPrompt, reason: str) -> None:
        self._lane.report([Progress(running.task.work_id, "failed", detail=reason)])

    def no_active_slot(self) -> bool:
        """Sample the trained prompts; the lane ends when there are none."""
        self.after_step()  # a prompt resumed after its last step has no step to make
        if not self._trained:
            return False
        self._sample()
        return True

    def _sample(self) -> None:
        """Draw images of all trained prompts, which are divided among the workers, until their verdicts are known."""
        lane = self._lane
        by_side: dict[int, list[_Trained]] = {}
        for trained in list(self._trained.values())[lane.workers.rank :: lane.workers.size]:
            by_side.setdefault(side_of(trained.running.task.entry, lane.base.spec), []).append(trained)
        for side, group in by_side.items():
            started = time.monotonic()
            candidates = [self._candidate(each, slot) for slot, each in enumerate(group, start=1)]
            draw(
                candidates,
                lane.base,
                lane.settings.evaluation,
                side=side,
                sample=partial(self._images, side),
                predict=partial(lane.predict, side=side),
            )
            seconds = (time.monotonic() - started) / len(group)
            for each, candidate in zip(group, candidates, strict=True):
                lane.engine.bank.unload(candidate.slot)
                self._write(each, candidate, seconds)
        lane.workers.wait_for_all()  # until their files are written
        lane.report([Progress(name, "sampled") for name in self._trained], wait=True)
        self._trained.clear()

    def _candidate(self, trained: _Trained, slot: int) -> Candidate:
        lane, running = self._lane, trained.running
        lane.engine.bank.load(slot, trained.adapter)
        exemplars = running.exemplars
        assessment = Assessment(
            Comparison.of(running.task.entry, lane.settings.evaluation),
            Exemplars(exemplars.training, exemplars.held_out, decoded_exemplars(lane.base, exemplars)),
            FeatureMemory(judge=self._judge, cache=lane.base.cache),
            lane.settings.evaluation,
            lane.settings.gate,
        )
        return Candidate(assessment, running.embeddings, slot)

    def _images(self, side: int, rows: list[SampleRow]) -> Tensor:
        return self._lane.sample(rows, side, partial(self._lane.report_sampling, self._trained, len(rows)))

    def _write(self, trained: _Trained, candidate: Candidate, sampling_seconds: float) -> None:
        """Write adapter, images and curve; the folder is created atomically."""
        lane, task, assessment = self._lane, trained.running.task, candidate.assessment
        folder, exemplars, drawn = task.folder, assessment.exemplars, assessment.drawn
        if folder.sampled.exists():  # by a lane that was regarded as lost; its images are the same
            folder.checkpoint.remove()
            return
        sampled = {
            "curve": trained.curve,
            "seconds": {"training": trained.running.seconds, "sampling": sampling_seconds},
            "cost": asdict(candidate.cost(task.entry, lane.base, lane.settings.evaluation)),
            "looks": [look.model_dump() for look in assessment.looks],
            "guard_shifts": [shift.model_dump() for shift in assessment.guard_shifts],
            "negative_shifts": [shift.model_dump() for shift in assessment.negative_shifts],
            "own": len(drawn.own),
            "guards": [guard.prompt for guard in drawn.guards],
            # Written here since the scoring task's code may have another lexicon than the lane's.
            "hard_negatives": [negative.model_dump() for negative in drawn.negatives],
        }
        assert exemplars.decoded is not None
        training, held_out = exemplars.decoded
        decoded = {"training": training.contiguous(), "held_out": held_out.contiguous()}
        with staging_folder(folder.sampled.path) as staging:
            written = staging / "sampled"
            write_comparison(
                written,
                drawn,
                adapter=trained.adapter,
                training=exemplars.training,
                held_out=exemplars.held_out,
                before=assessment.before,
                after=assessment.after,
            )
            save_file(decoded, written / DECODED_FILE)
            assessment.memory.save(written / FEATURES_FILE)
            (written / SAMPLED_FILE).write_text(json.dumps(sampled))
            folder.sampled.replace(written)
        folder.sampled.forget()
        folder.checkpoint.remove()


def read_sampled(folder: PromptFolder) -> dict[str, Any]:
    """The curve, the seconds, the cost, the looks and the hard negatives that the lane wrote; `sampled` must be fetched."""
    sampled: dict[str, Any] = json.loads((folder.sampled.path / SAMPLED_FILE).read_text())
    sampled["hard_negatives"] = tuple(map(NegativeSamples.model_validate, sampled["hard_negatives"]))
    sampled["cost"] = CorrectionCost(**sampled["cost"])
    sampled["looks"] = tuple(map(Look.model_validate, sampled["looks"]))
    for kind in ("guard_shifts", "negative_shifts"):
        sampled[kind] = tuple(map(PredictionShift.model_validate, sampled.get(kind, ())))
    return sampled


def drawn_comparison(
    task: PromptTask, evaluation: EvaluationSettings, sampled: Mapping[str, Any]
) -> Comparison:
    """Texts and seeds of the images that the lane drew, given what `read_sampled` returned."""
    drawn = Comparison.of(task.entry, evaluation).part(sampled["own"], guards=sampled["guards"])
    return replace(drawn, negatives=sampled["hard_negatives"])


def read_decoded(folder: PromptFolder) -> tuple[Tensor, Tensor]:
    """Training and held-out exemplars [N, 3, H, W], values 0 to 1, encoded and decoded by the base's VAE."""
    decoded = load_file(folder.sampled.path / DECODED_FILE)
    return decoded["training"], decoded["held_out"]
