"""The result of a search: every trial with its scores, and the choice for each prompt, as JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from corrector.evaluation.trial_score import TrialScore
from corrector.prompts.search_settings import Configuration


class RungReport(BaseModel):
    """A trial's score at one rung."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rung: int = Field(description="Counted from 0.")
    steps: int = Field(description="Optimiser steps made.")
    seconds: float = Field(
        description="Seconds of the lane's time for training and scoring the trial so far."
    )
    score: TrialScore

    @property
    def metrics(self) -> dict[str, float]:
        return {
            "rung": self.rung,
            "steps": self.steps,
            "seconds": self.seconds,
            **self.score.model_dump(),
        }


class TrialResult(BaseModel):
    """One trial."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    index: int = Field(description="0 is the prompt's own configuration.")
    configuration: Configuration
    state: Literal["finished", "stopped", "failed", "unfinished"] = Field(
        description="finished: scored by the whole protocol; stopped: early, by the search; failed: see detail; "
        "unfinished: the job ended first."
    )
    detail: str = ""
    reports: tuple[RungReport, ...] = ()
    confirmed: TrialScore | None = Field(
        default=None, description="The score on fresh seeds, for the few best trials."
    )

    @property
    def score(self) -> float | None:
        """Its last score among trials; None where it was never scored."""
        return self.reports[-1].score.score if self.reports else None


class PromptSearchResult(BaseModel):
    """The result of the search for one prompt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    prompt: str
    search_id: str = Field(description="Hash of everything that determines its trials.")
    best: int | None = Field(
        default=None, description="Index of the trial that was chosen; null: no trial ended."
    )
    reason: str = ""
    difference: float | None = Field(
        default=None,
        description="FID of the lowest trial minus that of the own configuration, on fresh seeds.",
    )
    interval: tuple[float, float] | None = None
    trials: tuple[TrialResult, ...]

    @property
    def chosen(self) -> TrialResult | None:
        return next((trial for trial in self.trials if trial.index == self.best), None)


class SearchResult(BaseModel):
    """The result of a search."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    batch: str
    base: str
    base_revision: str
    objective: str
    extractor: str
    seconds: float
    prompts: tuple[PromptSearchResult, ...]
