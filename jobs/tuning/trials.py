"""The journal of a trial on disk: its configuration, its scores at rungs, and how it ended.

Work that is in the journal is not repeated after a process dies.

FOLDER/
  configuration.json    the hyper-parameters that are varied; written when the trial begins
  reports.json          its scores so far, one a rung
  outcome.json          how it ended, where it ended before its last rung: stopped or failed, and why
  checkpoint/           the fine-tune at its last score
  features.safetensors  the features of the images of its last score
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save
from torch import Tensor

from corrector.evaluation.trial_score import SampleFeatures
from corrector.files import write_atomically
from corrector.prompts.search_settings import Configuration
from corrector.record.search_results import RungReport
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import remove_folder, write_json

OWN = 0
"""Index of the trial with the prompt's own configuration, which is always trained to its end; the best is compared with it."""


class Outcome(BaseModel):
    """How a trial ended before its last rung."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["stopped", "failed"]
    detail: str = ""


@dataclass(frozen=True)
class TrialFolder:
    """The folder of one trial."""

    path: Path

    @classmethod
    def of(cls, task: PromptTask) -> TrialFolder:
        """The journal of a trial that a lane holds."""
        return cls(task.folder.path)

    @property
    def checkpoint(self) -> Path:
        """The fine-tune's state, at the same place as in a prompt's folder."""
        return self.path / "checkpoint"

    @property
    def configuration(self) -> Configuration | None:
        """The hyper-parameters that are varied; None before the trial began."""
        try:
            found: Configuration = json.loads((self.path / "configuration.json").read_text())
        except FileNotFoundError:
            return None
        return found

    def begin(self, configuration: Configuration) -> None:
        write_json(self.path / "configuration.json", configuration)

    @property
    def changed(self) -> int:
        """Time of the last write of its scores, in nanoseconds since 1970; 0 before the first."""
        try:
            return (self.path / "reports.json").stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    @property
    def reports(self) -> list[RungReport]:
        """Its scores so far, in the order of rungs."""
        try:
            found = json.loads((self.path / "reports.json").read_text())
        except FileNotFoundError:
            return []
        return [RungReport.model_validate(report) for report in found]

    def add_report(self, report: RungReport, features: SampleFeatures) -> None:
        """Write a rung's score, and the features that it was computed from."""
        self.path.mkdir(parents=True, exist_ok=True)
        tensors = {key: each.contiguous() for key, each in to_tensors(features).items()}
        write_atomically(self.path / "features.safetensors", save(tensors))
        reports = [*self.reports, report]
        write_json(self.path / "reports.json", [each.model_dump(mode="json") for each in reports])

    @property
    def features(self) -> SampleFeatures:
        """The features of the images of its last score."""
        return from_tensors(load_file(self.path / "features.safetensors"))

    @property
    def outcome(self) -> Outcome | None:
        """How it ended before its last rung; None where it did not."""
        try:
            return Outcome.model_validate_json((self.path / "outcome.json").read_text())
        except FileNotFoundError:
            return None

    def end(self, outcome: Outcome) -> None:
        """Write how it ended, and remove its checkpoint."""
        write_json(self.path / "outcome.json", outcome.model_dump(mode="json"))
        remove_folder(self.checkpoint)


def to_tensors(features: SampleFeatures) -> dict[str, Tensor]:
    """Features as named tensors, for a safetensors file or the cache."""
    guards = {f"guard-{index:03d}": each for index, each in enumerate(features.guards)}
    return {"own": features.own, **guards}


def from_tensors(tensors: dict[str, Tensor]) -> SampleFeatures:
    """The inverse of `to_tensors`."""
    guards = sorted(key for key in tensors if key != "own")
    return SampleFeatures(tensors["own"], tuple(tensors[key] for key in guards))
