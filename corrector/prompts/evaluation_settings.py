"""EvaluationSettings: how images of the base and of the corrected model are compared."""

from pydantic import BaseModel, ConfigDict, Field

from corrector.prompts.hyperparameters import MAX_SEED


class EvaluationSettings(BaseModel):
    """How the base and the corrected model are compared: equal numbers of images from the same seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    images: int = Field(default=32, ge=2, le=100_000)
    """Images of each arm, base and corrected, spread over prompt and paraphrases."""
    guard_images: int = Field(default=8, ge=1, le=10_000)
    """Images of each arm for every guard prompt."""
    hard_negatives: int = Field(default=4, ge=0, le=40)
    """Prompts near the corrected one that mean something else, drawn to tell what a false route to the adapter
    would do to them; 0: none."""
    hard_negative_images: int = Field(default=3, ge=2, le=10_000)
    """Images of each arm for every hard negative."""
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    """Sampling steps; none: the base's own."""
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    """Classifier-free guidance; none: the base's own."""
    seed: int = Field(default=1000, ge=0, le=MAX_SEED)
    """Seed of the first image; the others count on from it."""
    permutations: int = Field(default=2000, ge=19, le=1_000_000)
    """Permutations of the relative-MMD test; its smallest p is 1 / (permutations + 1)."""
    bootstrap: int = Field(default=1000, ge=20, le=1_000_000)
    """Bootstrap samples behind each interval."""
