"""How the hyper-parameters of a batch are searched: what is varied, trials, rungs, and by what a trial is judged.

Varied is what a slot of a pack can have for itself. Target layers, blocks and the number of text tokens are not: all slots
of a pack share one bank of layers and one forward.
"""

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from corrector.prompts.hyperparameters import MAX_SEED

SEARCHED = (
    "rank",
    "alpha",
    "learning_rate",
    "lr_schedule",
    "steps",
    "batch_size",
    "timestep_density",
    "preservation",
    "preservation_weight",
)
"""The hyper-parameters that a search can vary."""
NUMERIC = ("rank", "alpha", "learning_rate", "steps", "batch_size", "preservation_weight")
"""Those that a range can be given for; all are drawn by their logarithm, since their effect goes by ratios."""
WHOLE = ("rank", "steps", "batch_size")

Target = Literal["score", "distance", "damage", "diversity", "seconds"]
"""What TPE can aim at, of a trial's last score; all are to be low but `HIGH`."""
HIGH: Target = "diversity"

Value = int | float | str | None
Configuration = dict[str, Value]
"""One value for each hyper-parameter that is varied."""


class Choices(BaseModel):
    """A few values, each as likely as any other."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    values: tuple[Value, ...]


class Range(BaseModel):
    """All values from `low` to `high`, by their logarithm."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    low: float
    high: float


Dimension = Choices | Range


class SearchSettings(BaseModel):
    """What `python -m jobs.search` tries, and how it chooses; `jobs.correct` does not read it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scope: Literal["prompt", "batch"] = Field(
        default="prompt",
        description="What a configuration is searched for: each prompt by itself, or the batch as a whole, where a trial "
        "trains all prompts with one configuration and its score is their mean.",
    )
    trials: int = Field(default=8, ge=1, le=10_000, description="Configurations tried for each prompt.")
    sampler: Literal["sobol", "random", "grid", "tpe"] = Field(
        default="sobol",
        description="Where configurations come from: drawn evenly over every dimension, drawn at random, every one of the "
        "space, or proposed by Optuna's tree-structured Parzen estimator from those that were scored.",
    )
    targets: tuple[Target, ...] = Field(
        default=("score",),
        description="What proposals of tpe aim at: with several, they spread over the best compromises between them. What is "
        "chosen in the end goes by the score.",
    )
    scheduler: Literal["asha", "hyperband", "none"] = Field(
        default="asha",
        description="What stops trials early: asynchronous successive halving at each rung; the same with some trials spared "
        "at the first rungs, for those that begin slowly; or nothing.",
    )
    rungs: int = Field(
        default=3, ge=1, le=10, description="How often a trial is scored, the last time at its last step."
    )
    reduction_factor: int = Field(
        default=3,
        ge=2,
        le=16,
        description="A rung has this many times the steps of the one before, and one in so many trials goes on.",
    )
    objective: Literal["fid", "kid", "relative_mmd"] = Field(
        default="fid",
        description="Distance to the held-out exemplars, as a share of the base's: Fréchet, kernel, or the statistic of the "
        "relative-MMD test, which ranks trials as kid does.",
    )
    extractor: Literal["efficientnet_lite0", "opennsfw"] = Field(
        default="efficientnet_lite0", description="Whose features the distance is measured in."
    )
    first_images: int = Field(
        default=8,
        ge=2,
        le=10_000,
        description="Images at the first rung; the last has evaluation.images, and those between go by ratios.",
    )
    damage_weight: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="What a trial is charged for guard prompts that change: this times the share of guard images lost.",
    )
    diversity_weight: float = Field(
        default=1.0,
        ge=0,
        le=100,
        description="What a trial is charged for lost diversity: this times what is missing to gate.min_diversity.",
    )
    confirmed: int = Field(
        default=3,
        ge=1,
        le=100,
        description="How many of the best trials are scored again on fresh seeds before one is named best.",
    )
    max_steps: int | None = Field(
        default=None,
        ge=1,
        description="Budget for each prompt: optimiser steps of its trials together, were none stopped early. None: all "
        "trials.",
    )
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="Seed of the configurations that are drawn.")
    space: Mapping[str, Dimension | None] = Field(
        default={"rank": None, "learning_rate": None},
        description="What is varied, by hyper-parameter; None: its default space, which lies around the prompt's own value.",
    )
