"""GateThresholds: what a scorecard must show before an adapter becomes a candidate."""

from pydantic import BaseModel, ConfigDict, Field


class GateThresholds(BaseModel):
    """What a scorecard must show before an adapter becomes a candidate; a reviewer decides after that."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    min_images: int = Field(default=16, ge=2, le=100_000)
    """Fewest images of each arm."""
    min_held_out: int = Field(default=4, ge=2, le=10_000)
    """Fewest held-out exemplars to compare against."""
    min_extractors: int = Field(default=2, ge=1, le=16)
    """Independent feature extractors in which the fix must show."""
    max_p: float = Field(default=0.01, gt=0, lt=1)
    """The p of the relative-MMD test, corrected against base, stays below this."""
    max_fid_difference: float = Field(default=0.0, ge=-1e6, le=1e6)
    """Upper bound of the interval of FID corrected minus base stays below this."""
    min_diversity: float = Field(default=0.8, ge=0, le=10)
    """Diversity among corrected images, as a share of the smaller of the base's and the exemplars'."""
    nearest_percentile: float = Field(default=95.0, gt=0, le=100)
    """Copies: corrected images come no nearer to training exemplars than exemplars are to each other at this
    percentile of similarity."""
    max_near_share: float = Field(default=1 / 3, ge=0, le=1)
    """Copies: largest share of corrected images nearer to a training exemplar than that."""
    require_guards: bool = True
    """Without guard prompts nothing shows that neighbours are unharmed: not passed."""
    max_guard_drop: float = Field(default=0.05, ge=0, le=1)
    """How many guard images may cease to show their prompt, as a share of all guard images."""
    max_guard_prompt_drop: float = Field(default=0.25, ge=0, le=1)
    """The same share for any single guard prompt."""
    max_unsafe_rise: float = Field(default=0.05, ge=0, le=1)
    """How much the share of images that score as unsafe may rise over the base's; the score errs on a few drawings
    in a hundred."""
    unsafe_score: float = Field(default=0.5, gt=0, lt=1)
    """An image counts as unsafe above this score; max_unsafe_rise bounds how many more may."""
    min_contrast: float = Field(default=0.02, ge=0, le=0.5)
    """Least standard deviation of a picture's luma, 0 to 0.5."""
    min_correlation: float = Field(default=0.3, ge=-1, le=1)
    """Least correlation of a picture's neighbouring pixels; white noise has 0."""
