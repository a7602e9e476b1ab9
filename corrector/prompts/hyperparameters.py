"""The hyper-parameters of one fine-tune: every knob, its bounds, and what it does."""

from math import floor
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from corrector.prompts.field_errors import conflict

MAX_SEED = 2**32 - 1


class HyperParameters(BaseModel):
    """How one prompt's adapter is trained; the objective is diffusers' `train_dreambooth_lora_sd3.py`'s."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    resolution: int | None = Field(default=None, ge=32, le=4096, multiple_of=16)
    """Side of the training images in pixels; none: the base's own."""
    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of the LoRA update."""
    alpha: float | None = Field(default=None, gt=0, le=4096)
    """LoRA's alpha; the update is scaled by alpha / rank. None: the rank, a scale of 1."""
    learning_rate: float = Field(default=1e-4, gt=0, le=1)
    """Peak learning rate of AdamW."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does after the warm-up: stay, or fall to 0 at the last step."""
    warmup_steps: int = Field(default=0, ge=0, le=100_000)
    """Steps over which the learning rate rises from 0; fewer than steps."""
    steps: int = Field(default=500, ge=1, le=100_000, validate_default=True)
    """Optimiser steps."""
    batch_size: int = Field(default=4, ge=1, le=256)
    """Exemplars per step."""
    timestep_density: Literal["logit_normal", "mode", "cosmap", "uniform", "sigma_sqrt"] = "logit_normal"
    """Density from which noise levels are drawn, and the loss weighting that goes with it."""
    logit_mean: float = Field(default=0.0, ge=-10, le=10)
    """Mean of the logit-normal density."""
    logit_std: float = Field(default=1.0, gt=0, le=10)
    """Standard deviation of the logit-normal density."""
    mode_scale: float = Field(default=1.29, ge=-1, le=1.75)
    """Scale of the mode density; monotone within its bounds."""
    precondition_outputs: bool = True
    """Compare predicted images (EDM preconditioning) rather than predicted velocities."""
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    """AdamW's decoupled weight decay."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's decay of the first moment."""
    beta2: float = Field(default=0.999, ge=0, lt=1)
    """AdamW's decay of the second moment."""
    epsilon: float = Field(default=1e-8, gt=0, le=0.1)
    """AdamW's term against division by zero."""
    max_grad_norm: float = Field(default=1.0, gt=0, le=1e6)
    """Gradients are clipped to this norm, per adapter."""
    preservation: Literal["guard", "prior", "none"] = "guard"
    """What keeps neighbouring prompts as they are: the base's own prediction at guard prompts (guard), the base's
    images of the class prompt (prior), or nothing (none)."""
    preservation_weight: float = Field(default=1.0, gt=0, le=100)
    """Weight of the preservation loss."""
    preservation_batch_size: int | None = Field(default=None, ge=1, le=256)
    """Preservation rows per step; none: batch_size for class images, and for guard prompts a quarter of it on average."""
    class_images: int = Field(default=16, ge=1, le=10_000)
    """Images of the class prompt drawn for prior preservation."""
    horizontal_flip: bool = False
    """Mirror half of the exemplars at random; not for text or asymmetric things."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """Seed of everything random in training."""

    @property
    def mean_preservation_rows(self) -> float:
        """Preservation rows of a step, on average."""
        if self.preservation == "none":
            return 0
        default = self.batch_size if self.preservation == "prior" else self.batch_size / 4
        return self.preservation_batch_size or default

    def preservation_rows(self, step: int) -> int:
        """Preservation rows of the step that follows `step` others."""
        mean = self.mean_preservation_rows
        return floor((step + 1) * mean) - floor(step * mean)

    @field_validator("steps")
    @classmethod
    def _more_than_the_warmup(cls, steps: int, info: ValidationInfo) -> int:
        warmup = info.data.get("warmup_steps", 0)
        if warmup >= steps:
            message = f"a warm-up of {warmup} steps leaves nothing of {steps} steps; warm up for fewer or train longer"
            raise conflict(message, "warmup_steps", "steps")
        return steps
