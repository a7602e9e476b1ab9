"""The results of a run: in memory while the job works, and in `result.json` for scripts."""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from corrector.cost import device_seconds, dollars
from corrector.prompts.gate_thresholds import Grade
from corrector.record.correction_record import CorrectionRecord
from corrector.registry import RegisteredVersion
from corrector.settings import Settings
from jobs.inputs.batch import BatchWork
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import write_json

Status = Literal["corrected", "rejected", "failed", "unfinished"]

WRITE_SECONDS = 2.0
"""Seconds between two writes of result.json while the job works: it grows with the batch, and prompts end in bursts."""
_REGISTERED = TypeAdapter(RegisteredVersion)


class PromptResult(BaseModel):
    """The result of one prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    name: str
    prompt: str
    status: Status = Field(
        description="corrected: the gate passed; rejected: trained, but the gate said no; failed: see error; "
        "unfinished: the job was stopped before its end, submit the batch again."
    )
    grade: Grade | None = Field(
        default=None,
        description="improved: the images came nearer to the exemplars; fixed: a judge of images calls them right; null: "
        "the gate did not pass.",
    )
    images: int | None = Field(
        default=None,
        description="Images of each arm of the prompt itself that were drawn until the verdict was known.",
    )
    error: str | None = None
    reasons: tuple[str, ...] = Field(default=(), description="Why the gate said no, in words.")
    work_id: str
    worked: bool = Field(description="Whether this submission finished it; false where an earlier one had.")
    found: str | None = Field(
        default=None,
        description="The version that another run had registered of this very work, and that the record was taken from "
        "instead of training; null: trained in this run.",
    )
    adapter: RegisteredVersion | None = None
    scorecard: dict[str, Any] | None = None
    seconds: dict[str, float] = Field(default_factory=dict, description="Wall-clock seconds per stage.")
    petaflops: dict[str, float] = Field(
        default_factory=dict, description="10^15 floating-point operations per stage, a multiply-add as two."
    )
    dollars: float | None = Field(
        default=None,
        description="Price of training and sampling at CORRECTOR_DEVICE_HOUR_DOLLARS; null: that is not set.",
    )
    folder: str = Field(description="The prompt's record: adapter, images, curve.")


class RunResult(BaseModel):
    """The result of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    run: str
    batch: str
    base: str
    base_revision: str
    seconds: float = Field(description="Wall-clock seconds of this submission so far.")
    report: str | None = None
    prompts: tuple[PromptResult, ...]

    @property
    def exit_status(self) -> int:
        """0: every prompt is corrected; 1: some are not."""
        return 0 if all(prompt.status == "corrected" for prompt in self.prompts) else 1


class Results:
    """The results of all prompts of a run; a prompt's folder is read again only when its result changes."""

    def __init__(self, work: BatchWork) -> None:
        self._work = work
        self._started = self._written = time.monotonic()
        self._is_written = True
        self._by_id = {task.work_id: _read(task) for task in work.tasks}

    def __getitem__(self, task: PromptTask) -> PromptResult:
        return self._by_id[task.work_id]

    @property
    def any_new(self) -> bool:
        """Whether this submission finished a prompt."""
        return any(result.worked for result in self._by_id.values())

    def settle(self, task: PromptTask, error: str | None) -> PromptResult:
        """Read the result of a prompt that this submission finished; `error` says why it could not be finished."""
        result = self._by_id[task.work_id] = _read(task, error=error, worked=True)
        self._is_written = False
        return result

    def flush(self) -> None:
        """Write result.json if it is out of date and the last write was not too recent."""
        if not self._is_written and time.monotonic() - self._written > WRITE_SECONDS:
            self.write()

    def write(self) -> RunResult:
        run, spec = self._work.run, self._work.spec
        result = RunResult(
            run=run.run,
            batch=str(self._work.batch.path),
            base=spec.name,
            base_revision=spec.revision,
            seconds=round(time.monotonic() - self._started, 1),
            report=run.report.url if run.report.exists() else None,
            prompts=tuple(self._by_id.values()),
        )
        content = result.model_dump(mode="json", exclude={"prompts": {"__all__": {"adapter": {"source"}}}})
        write_json(run.result, content)
        self._is_written, self._written = True, time.monotonic()
        return result


def _read(task: PromptTask, *, error: str | None = None, worked: bool = False) -> PromptResult:
    folder = task.folder
    common: dict[str, Any] = {
        "name": task.entry.name,
        "prompt": task.entry.prompt,
        "work_id": task.work_id,
        "folder": folder.record.url,
        "worked": worked,
    }
    if not folder.record.fetch():
        return PromptResult(status="unfinished", error=error, **common)
    record = CorrectionRecord.load(folder.record.path)
    assert record.status != "not judged"  # a status of imported adapters
    registered = folder.registration.read()
    card = record.scorecard
    checks = () if card is None else card.verdict.reasons
    stages, price = (
        record.cost.by_stage if record.cost else {},
        Settings.from_environment().device_hour_dollars,
    )
    return PromptResult(
        status="unfinished" if error else record.status,
        grade=None if card is None else card.verdict.grade,
        images=None if card is None else card.n,
        error=error or record.error,
        reasons=tuple(check.detail for check in checks if not check.passed),
        adapter=None if registered is None else _REGISTERED.validate_json(registered),
        found=folder.restored_from(),
        scorecard=None if card is None else card.model_dump(mode="json"),
        seconds=record.seconds,
        petaflops={stage: float(f"{flops / 1e15:.4g}") for stage, flops in stages.items()},
        dollars=None if price is None else round(dollars(device_seconds(record.seconds), price), 6),
        **common,
    )
