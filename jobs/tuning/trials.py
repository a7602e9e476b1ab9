"""The trials of a search on disk and in the queue: configurations, scores at rungs, and how each ended. Knows no Ray.

A trial's folder is its journal: what stands there is not done again, whoever died.

FOLDER/
  configuration.json   the hyper-parameters that are varied; written when the trial begins
  reports.json         its scores so far, one a rung
  outcome.json         where it ended before its last rung: stopped or failed, and why
  checkpoint/          the fine-tune as it was scored last
  features.safetensors of the images that it was scored by last
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict
from safetensors.torch import load_file, save_file

from corrector.evaluation.objective import ArmFeatures
from corrector.evaluation.rungs import Rung, rungs_of_trial
from corrector.prompts import EvaluationSettings, FailingPrompt
from corrector.prompts.search import Configuration
from corrector.prompts.search_space import configured
from corrector.record.search import RungReport
from jobs.inputs.batch import WorkItem
from jobs.inputs.run_folder import remove_folder, write_json

OWN = 0
"""The trial with the prompt's own configuration, which is always trained to its end: what the best is compared with."""

Ending = Literal["stopped", "failed"]


@dataclass(frozen=True)
class TrialItem(WorkItem):
    """A trial as a lane receives it: the prompt with the trial's hyper-parameters, and where it is scored."""

    rungs: tuple[Rung, ...]

    @property
    def trial(self) -> TrialFolder:
        """Its journal."""
        return TrialFolder(Path(self.folder))


class Outcome(BaseModel):
    """How a trial ended before its last rung."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Ending
    detail: str = ""


@dataclass(frozen=True)
class TrialFolder:
    """The folder of one trial."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The fine-tune's state; the lane's own name for it in any prompt's folder."""
        return self.path / "checkpoint"

    @property
    def configuration(self) -> Configuration | None:
        """What the trial varies; None before it began."""
        try:
            found: Configuration = json.loads((self.path / "configuration.json").read_text())
        except FileNotFoundError:
            return None
        return found

    def begin(self, configuration: Configuration) -> None:
        """Note what the trial varies."""
        write_json(self.path / "configuration.json", configuration)

    @property
    def reports(self) -> list[RungReport]:
        """Its scores so far, in the order of rungs."""
        try:
            found = json.loads((self.path / "reports.json").read_text())
        except FileNotFoundError:
            return []
        return [RungReport.model_validate(report) for report in found]

    def add_report(self, report: RungReport, features: ArmFeatures) -> None:
        """Keep a rung's score, and the features that it was made of."""
        self.path.mkdir(parents=True, exist_ok=True)
        tensors = {"own": features.own} | {
            f"guard-{index:03d}": each for index, each in enumerate(features.guards)
        }
        partial = self.path / ".features.partial"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, partial)
        partial.replace(self.path / "features.safetensors")
        reports = [*self.reports, report]
        write_json(self.path / "reports.json", [each.model_dump(mode="json") for each in reports])

    @property
    def features(self) -> ArmFeatures:
        """The features of the images that it was scored by last."""
        found = load_file(self.path / "features.safetensors")
        guards = sorted(key for key in found if key != "own")
        return ArmFeatures(found["own"], tuple(found[key] for key in guards))

    @property
    def outcome(self) -> Outcome | None:
        """How it ended before its last rung; None where it did not."""
        try:
            return Outcome.model_validate_json((self.path / "outcome.json").read_text())
        except FileNotFoundError:
            return None

    def end(self, outcome: Outcome) -> None:
        """Note that it goes no further; nobody will need its checkpoint."""
        write_json(self.path / "outcome.json", outcome.model_dump(mode="json"))
        remove_folder(self.checkpoint)


@dataclass(frozen=True)
class PromptPlan:
    """The search for one prompt, as the queue needs it.

    Attributes:
        work_id: The prompt's content hash, from which those of its trials are made.
        exemplars: The cache key of the decoded exemplars.
        folder: Of its trials.
        rungs: Of the longest trial.
    """

    work_id: str
    entry: FailingPrompt
    exemplars: str
    folder: str
    rungs: tuple[Rung, ...]

    def rungs_of(self, index: int) -> int:
        """How many rungs trial `index`, which has begun, has of its own."""
        return len(self.item(index, self.trial_folder(index).configuration or {}).rungs)

    def trial_id(self, index: int) -> str:
        """What the queue knows trial `index` by."""
        return f"{self.work_id[:16]}-{index:03d}"

    def trial_folder(self, index: int) -> TrialFolder:
        """The journal of trial `index`."""
        return TrialFolder(Path(self.folder) / f"{index:03d}")

    def item(
        self, index: int, configuration: Configuration, *, confirmation: EvaluationSettings | None = None
    ) -> TrialItem:
        """Trial `index` for the queue; with `confirmation` it is scored so once more after its last rung."""
        entry = configured(self.entry, configuration)
        steps = entry.hyperparameters.steps
        own = rungs_of_trial(self.rungs, steps)
        further = () if confirmation is None else (Rung(steps, confirmation),)
        return TrialItem(
            work_id=self.trial_id(index),
            entry=entry,
            exemplars=self.exemplars,
            folder=str(self.trial_folder(index).path),
            rungs=(*own, *further),
        )


@dataclass(frozen=True)
class TrialGroup:
    """The prompts that a trial of Tune trains with its configuration: one, or all of a batch that is searched as a whole."""

    name: str
    plans: tuple[PromptPlan, ...]

    @property
    def rungs(self) -> tuple[Rung, ...]:
        """Of the longest trial, at the same steps for all prompts."""
        return self.plans[0].rungs

    def begin(self, index: int, configuration: Configuration) -> None:
        """Note for every prompt what trial `index` varies."""
        for plan in self.plans:
            plan.trial_folder(index).begin(configuration)
