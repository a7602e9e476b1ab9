"""The lane policy of a correction: base and corrected images of every trained prompt, in `sampled/` of its folder."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from corrector.adapters import Adapter
from corrector.evaluation import Comparison
from corrector.evaluation.comparison import NegativeSamples
from corrector.files import staging_folder
from corrector.prompt_inputs import comparison_rows, decoded_exemplars, side_of
from corrector.record.writing import write_comparison
from corrector.sampling import SampleRow
from jobs.inputs.run_folder import SAMPLED_FILE, PromptFolder
from jobs.lanes.lane import Lane, LanePolicy, RunningPrompt
from jobs.lanes.queue import Progress

DECODED_FILE = "decoded.safetensors"
"""The exemplars encoded and decoded by the base's VAE, which the check for copies compares with."""


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
        """Sample base and corrected images of all trained prompts, which are divided among the workers."""
        lane = self._lane
        by_side: dict[int, list[_Trained]] = {}
        for trained in list(self._trained.values())[lane.workers.rank :: lane.workers.size]:
            by_side.setdefault(side_of(trained.running.task.entry, lane.base.spec), []).append(trained)
        for side, group in by_side.items():
            started = time.monotonic()
            evaluation = lane.settings.evaluation
            comparisons = [Comparison.of(each.running.task.entry, evaluation) for each in group]
            rows: list[SampleRow] = []
            for slot, (each, comparison) in enumerate(zip(group, comparisons, strict=True), start=1):
                lane.engine.bank.load(slot, each.adapter)
                for index in (0, slot):
                    embeddings = each.running.embeddings
                    rows += comparison_rows(comparison, evaluation, embeddings, lane.base, slot=index)
            images = lane.sample(rows, side, partial(lane.report_sampling, self._trained, len(rows)))
            seconds = (time.monotonic() - started) / len(group)
            sides = iter(images.split([len(comparison) for comparison in comparisons for _ in range(2)]))
            for slot, (each, comparison) in enumerate(zip(group, comparisons, strict=True), start=1):
                lane.engine.bank.unload(slot)
                self._write(each, comparison, next(sides), next(sides), seconds)
        lane.workers.wait_for_all()  # until their files are written
        lane.report([Progress(name, "sampled") for name in self._trained], wait=True)
        self._trained.clear()

    def _write(
        self,
        trained: _Trained,
        comparison: Comparison,
        before: Tensor,
        after: Tensor,
        sampling_seconds: float,
    ) -> None:
        """Write adapter, images and curve; the folder is created atomically."""
        folder, exemplars = trained.running.task.folder, trained.running.exemplars
        if folder.sampled.exists():  # by a lane that was regarded as lost; its images are the same
            folder.checkpoint.remove()
            return
        sampled = {
            "curve": trained.curve,
            "seconds": {"training": trained.running.seconds, "sampling": sampling_seconds},
            # Written here since the scoring task's code may have another lexicon than the lane's.
            "hard_negatives": [negative.model_dump() for negative in comparison.negatives],
        }
        training, held_out = decoded_exemplars(self._lane.base, exemplars)
        decoded = {"training": training.contiguous(), "held_out": held_out.contiguous()}
        with staging_folder(folder.sampled.path) as staging:
            written = staging / "sampled"
            write_comparison(
                written,
                comparison,
                adapter=trained.adapter,
                training=exemplars.training,
                held_out=exemplars.held_out,
                before=before,
                after=after,
            )
            save_file(decoded, written / DECODED_FILE)
            (written / SAMPLED_FILE).write_text(json.dumps(sampled))
            folder.sampled.replace(written)
        folder.sampled.forget()
        folder.checkpoint.remove()


def read_sampled(folder: PromptFolder) -> dict[str, Any]:
    """The curve, the seconds and the hard negatives that the lane wrote; `sampled` must be fetched."""
    sampled: dict[str, Any] = json.loads((folder.sampled.path / SAMPLED_FILE).read_text())
    sampled["hard_negatives"] = tuple(map(NegativeSamples.model_validate, sampled["hard_negatives"]))
    return sampled


def read_decoded(folder: PromptFolder) -> tuple[Tensor, Tensor]:
    """Training and held-out exemplars [N, 3, H, W], values 0 to 1, encoded and decoded by the base's VAE."""
    decoded = load_file(folder.sampled.path / DECODED_FILE)
    return decoded["training"], decoded["held_out"]
