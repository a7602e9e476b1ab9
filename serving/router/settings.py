"""How prompts are routed."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class HeadSettings(BaseModel):
    """How heads are trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_precision: float = Field(
        default=0.97,
        gt=0,
        lt=1,
        description="Wilson 95 % lower bound of the precision on calibration prompts that a threshold must reach. 0.97 takes "
        "125 paraphrases accepted and no hard negative among them.",
    )
    training_paraphrases: int = Field(default=120, ge=1, description="How many are generated at most.")
    training_negatives: int = Field(default=240, ge=1, description="Likewise.")
    calibration_paraphrases: int = Field(default=240, ge=1, description="Likewise.")
    calibration_negatives: int = Field(default=200, ge=1, description="Likewise.")
    ridge: float = Field(default=0.3, gt=0, description="Of the weights on the embedding.")


class RouterSettings(BaseModel):
    """Heads, and what to make of their scores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    head: HeadSettings = HeadSettings()
    ambiguity: float = Field(
        default=0.25,
        ge=0,
        description="Two adapters whose logits differ by less than this are both not meant: the prompt goes to the base.",
    )
    cache: Path | None = Field(
        default=None, description="Folder that keeps trained heads for the next start; None keeps none."
    )
