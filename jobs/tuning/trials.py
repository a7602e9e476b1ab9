"""The journal of a trial in storage: its configuration, its scores at rungs, and how it ended.

Work that is in the journal is not repeated after a process dies.

FOLDER/
  configuration.json    the hyper-parameters that are varied; written when the trial begins
  reports.json          its scores so far, one a rung
  outcome.json          how it ended, where it ended before its last rung: stopped or failed, and why
  checkpoint/           the fine-tune at its last score
  features.safetensors  the features of the images of its last score
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load, save
from torch import Tensor

from corrector.errors import UserError
from corrector.evaluation.trial_score import SampleFeatures
from corrector.prompts.search_settings import Configuration
from corrector.record.search_results import RungReport
from corrector.storage import Storage, StoredFolder
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import PromptFolder, read_json, write_json

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

    place: Storage

    @classmethod
    def of(cls, task: PromptTask) -> TrialFolder:
        """The journal of a trial that a lane holds."""
        return cls(task.folder.place)

    @property
    def checkpoint(self) -> StoredFolder:
        """The fine-tune's state, at the same place as in a prompt's folder."""
        return PromptFolder(self.place).checkpoint

    @property
    def configuration(self) -> Configuration | None:
        """The hyper-parameters that are varied; None before the trial began."""
        found: Configuration | None = read_json(self.place.file("configuration.json"))
        return found

    def begin(self, configuration: Configuration) -> None:
        write_json(self.place.file("configuration.json"), configuration)

    @property
    def reports(self) -> list[RungReport]:
        """Its scores so far, in the order of rungs."""
        found = read_json(self.place.file("reports.json"))
        return [RungReport.model_validate(report) for report in found or ()]

    def add_report(self, report: RungReport, features: SampleFeatures) -> None:
        """Write a rung's score, and the features that it was computed from."""
        tensors = {key: each.contiguous() for key, each in _to_tensors(features).items()}
        self.place.file("features.safetensors").write(save(tensors))
        reports = [*self.reports, report]
        write_json(self.place.file("reports.json"), [each.model_dump(mode="json") for each in reports])

    @property
    def features(self) -> SampleFeatures:
        """The features of the images of its last score."""
        content = self.place.file("features.safetensors").read()
        if content is None:
            raise UserError(
                f"{self.place.root}: its features are missing; begin another search with --run-id"
            )
        return _from_tensors(load(content))

    @property
    def outcome(self) -> Outcome | None:
        """How it ended before its last rung; None where it did not."""
        content = self.place.file("outcome.json").read()
        return None if content is None else Outcome.model_validate_json(content)

    def end(self, outcome: Outcome) -> None:
        """Write how it ended, and remove its checkpoint."""
        write_json(self.place.file("outcome.json"), outcome.model_dump(mode="json"))
        self.checkpoint.remove()


def _to_tensors(features: SampleFeatures) -> dict[str, Tensor]:
    """Features as named tensors, for a safetensors file."""
    guards = {f"guard-{index:03d}": each for index, each in enumerate(features.guards)}
    return {"own": features.own, **guards}


def _from_tensors(tensors: dict[str, Tensor]) -> SampleFeatures:
    """The inverse of `_to_tensors`."""
    guards = sorted(key for key in tensors if key != "own")
    return SampleFeatures(tensors["own"], tuple(tensors[key] for key in guards))
