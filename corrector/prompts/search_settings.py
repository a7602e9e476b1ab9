"""How the hyper-parameters of a batch are searched: what is varied, trials, rungs, and by what a trial is judged.

Varied is what a slot of a pack can have for itself. Target layers, blocks and the number of text tokens are not: all slots
of a pack share one bank of layers and one forward.
"""

from collections.abc import Mapping, Sequence
from types import NoneType
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    field_validator,
)

from corrector.prompts.field_errors import located, message_error, validated_with
from corrector.prompts.hyperparameters import MAX_SEED, HyperParameters
from corrector.prompts.located_values import quoted

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

DEFAULT = "default"
"""Written for the default space of a hyper-parameter; a key without a value means the same."""

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


def _choices(values: Sequence[Value], handler: ValidatorFunctionWrapHandler) -> Choices:
    repeated = (
        located(message_error(f"{quoted(value)} is there twice; remove one"), item)
        for item, value in enumerate(values)
        if value in values[:item]
    )
    return Choices(values=validated_with(handler, values, repeated))


def _range(bounds: Any) -> Range:
    low, high = bounds.low, bounds.high
    if low >= high:
        raise message_error(f"empty: low, {low:g}, is not below high, {high:g}; swap or part them")
    return Range(low=low, high=high)


def _form(written: object) -> str | None:
    if isinstance(written, list | tuple):
        return "choices"
    return "range" if isinstance(written, dict) else "default" if written in (None, DEFAULT) else None


def _dimension(key: str) -> Any:
    """What a file may write for a hyper-parameter: a list of its values, a range, or its default space."""
    field = HyperParameters.model_fields[key]
    value: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    unique = Field(min_length=1, json_schema_extra={"uniqueItems": True})
    forms: Any = (
        Annotated[Literal["default", None], AfterValidator(lambda _: None), Tag("default")]
        | Annotated[tuple[value, ...], unique, WrapValidator(_choices), Tag("choices")]
    )
    ranged = ""
    if key in NUMERIC:
        number = next((kind for kind in get_args(field.annotation) if kind is not NoneType), field.annotation)
        bound: Any = (Annotated[(number, *field.metadata)], ...)
        config, text = Range.model_config, "From low to high, by ratios."
        bounds = create_model(f"{key}_range", __config__=config, __doc__=text, low=bound, high=bound)
        forms |= Annotated[bounds, AfterValidator(_range), Tag("range")]
        ranged = " {low: ..., high: ...},"
    expected = f'expected a list of values,{ranged} or "{DEFAULT}"'
    chosen = Discriminator(_form, custom_error_type="form", custom_error_message=expected)
    return Annotated[forms, chosen, Field(description=field.description)]


_DIMENSIONS: Any = {key: (_dimension(key), None) for key in SEARCHED}
_SPACE_CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, json_schema_extra={"minProperties": 1})
_Space: type[BaseModel] = create_model("_Space", __config__=_SPACE_CONFIG, **_DIMENSIONS)


class SearchSettings(BaseModel):
    """What `python -m jobs.search` tries, and how it chooses; `jobs.correct` does not read it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    scope: Literal["prompt", "batch"] = "prompt"
    """What a configuration is searched for: each prompt by itself, or the batch as a whole, where a trial trains
    all prompts with one configuration and its score is their mean."""
    trials: int = Field(default=8, ge=1, le=10_000)
    """Configurations tried for each prompt."""
    sampler: Literal["sobol", "random", "grid", "tpe"] = "sobol"
    """Where configurations come from: drawn evenly over every dimension, drawn at random, every one of the space,
    or proposed by Optuna's tree-structured Parzen estimator from those that were scored."""
    targets: tuple[Target, ...] = ("score",)
    """What proposals of tpe aim at: with several, they spread over the best compromises between them. What is
    chosen in the end goes by the score."""
    scheduler: Literal["asha", "hyperband", "none"] = "asha"
    """What stops trials early: asynchronous successive halving at each rung; the same with some trials spared at
    the first rungs, for those that begin slowly; or nothing."""
    rungs: int = Field(default=3, ge=1, le=10)
    """How often a trial is scored, the last time at its last step."""
    reduction_factor: int = Field(default=3, ge=2, le=16)
    """A rung has this many times the steps of the one before, and one in so many trials goes on."""
    objective: Literal["fid", "kid"] = "fid"
    """Distance to the held-out exemplars, as a share of the base's: Fréchet or kernel."""
    extractor: Literal["efficientnet_lite0", "opennsfw"] = "efficientnet_lite0"
    """Whose features the distance is measured in."""
    first_images: int = Field(default=8, ge=2, le=10_000)
    """Images at the first rung; the last has evaluation.images, and those between go by ratios."""
    damage_weight: float = Field(default=1.0, ge=0, le=100)
    """What a trial is charged for guard prompts that change: this times the share of guard images lost."""
    diversity_weight: float = Field(default=1.0, ge=0, le=100)
    """What a trial is charged for lost diversity: this times what is missing to gate.min_diversity."""
    confirmed: int = Field(default=3, ge=1, le=100)
    """How many of the best trials are scored again on fresh seeds before one is named best."""
    max_steps: int | None = Field(default=None, ge=1)
    """Budget for each prompt: optimiser steps of its trials together, were none stopped early. None: all trials."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of the configurations that are drawn."""
    space: Mapping[str, Dimension | None] = {"rank": None, "learning_rate": None}
    """What is varied, by hyper-parameter; None: its default space, which lies around the prompt's own value."""

    @field_validator("space", mode="before", json_schema_input_type=_Space)
    @classmethod
    def _as_written(cls, space: Any) -> Any:
        """A file writes choices as a list, a range by its bounds, a default space as "default" or as nothing."""
        if not isinstance(space, Mapping) or any(isinstance(each, Dimension) for each in space.values()):
            return space
        read = _Space.model_validate(space, strict=True)
        return {key: getattr(read, key) for key in space}
