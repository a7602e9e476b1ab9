"""`result.json`: what a script reads of a finished run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["corrected", "rejected", "failed", "unfinished"]


class AdapterReference(BaseModel):
    """A version in the registry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    sha256: str = Field(description="Over the bytes of pytorch_lora_weights.safetensors.")
    aliases: tuple[str, ...] = ()
    run_id: str


class PromptResult(BaseModel):
    """What came of one prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")

    name: str
    prompt: str
    status: Status = Field(
        description="corrected: the gate passed; rejected: trained, but the gate said no; failed: see error; "
        "unfinished: the job was stopped before its end, submit the batch again."
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
    adapter: AdapterReference | None = None
    scorecard: dict[str, Any] | None = None
    seconds: dict[str, float] = Field(default_factory=dict, description="Wall-clock seconds per stage.")
    folder: str = Field(description="The prompt's record: adapter, images, curve.")


class RunResult(BaseModel):
    """What came of a run; written whole after every prompt that finishes."""

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
