"""EvaluationSettings: how images of the base and of the corrected model are compared."""

from pydantic import BaseModel, ConfigDict, Field

from corrector.prompts.hyperparameters import MAX_SEED


class EvaluationSettings(BaseModel):
    """How the base and the corrected model are compared: equal numbers of images from the same seeds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    images: int = Field(default=32, ge=2, le=100_000)
    """Most images of each arm, base and corrected, spread over prompt and paraphrases."""
    look_images: int = Field(default=8, ge=2, le=100_000)
    """Images of each arm between two looks, at each of which the verdict on the prompt's own images may be clear."""
    stop_early: bool = True
    """Draw no more images than the verdict needs; otherwise all of them, guard images and hard negatives too."""
    guard_images: int = Field(default=24, ge=1, le=10_000)
    """Images of each arm for every guard prompt. One image in ten lost is seen by 24 in 92 % of cases."""
    hard_negatives: int = Field(default=4, ge=0, le=40)
    """Prompts near the corrected one that mean something else, drawn to tell what a false route to the adapter
    would do to them; 0: none."""
    hard_negative_images: int = Field(default=2, ge=2, le=10_000)
    """Images of each arm for every hard negative."""
    judge: str | None = Field(default=None, min_length=1, max_length=100)
    """Judge of images that an installed package registers under this name; it says how many images are right."""
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    """Sampling steps; none: the base's own."""
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    """Classifier-free guidance; none: the base's own."""
    seed: int = Field(default=1000, ge=0, le=MAX_SEED)
    """Seed of the first image; the others count on from it."""
    permutations: int = Field(default=2000, ge=19, le=1_000_000)
    """Sign flips of the paired tests, and permutations of the test for copies; the smallest p of a sample is
    1 / (permutations + 1)."""
    bootstrap: int = Field(default=1000, ge=20, le=1_000_000)
    """Bootstrap samples behind each interval."""
