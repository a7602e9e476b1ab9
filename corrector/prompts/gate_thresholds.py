"""GateThresholds: what a scorecard must show before an adapter becomes a candidate."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Grade = Literal["improved", "fixed"]
"""What a passed gate says: the images came nearer to the exemplars, or verdicts an image say that they are right."""


class GateThresholds(BaseModel):
    """What a scorecard must show before an adapter becomes a candidate; a reviewer decides after that."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    min_grade: Grade = "improved"
    """What an adapter must reach: improved (nearer to the exemplars), or fixed, which needs a judge of images."""
    min_images: int = Field(default=16, ge=2, le=100_000)
    """Fewest images of each arm."""
    min_held_out: int = Field(default=2, ge=2, le=10_000)
    """Fewest held-out exemplars to compare against."""
    min_extractors: int = Field(default=2, ge=1, le=16)
    """Feature extractors in which the fix must show. Their figures are correlated, so two are not two proofs."""
    max_p: float = Field(default=0.01, gt=0, lt=1)
    """Error rate of the paired test, corrected against base, and of its style control, spent over the looks at more and
    more images."""
    min_beyond_style: float = Field(default=0.2, ge=0, le=1)
    """Smallest share of the fall in distance that is left against the base in the corrected images' style."""
    max_fid_difference: float | None = Field(default=None, ge=-1e6, le=1e6)
    """Where given, the upper bound of the interval of FID corrected minus base stays below this."""
    min_diversity: float = Field(default=0.3, ge=0, le=10)
    """Diversity among corrected images (median distance to the nearest other), as a share of the base's."""
    nearest_percentile: float = Field(default=95.0, gt=0, le=100)
    """Copies: corrected images come no nearer to training exemplars than exemplars are to each other at this
    percentile of similarity."""
    max_near_share: float = Field(default=1 / 3, ge=0, le=1)
    """Copies: largest share of corrected images nearer to a training exemplar than that, where max_copy_p says that
    they prefer training exemplars to held-out ones."""
    max_copy_p: float = Field(default=0.05, gt=0, lt=1)
    """Copies: p of the permutation test of training against held-out exemplars at which images prefer the training
    exemplars."""
    max_near_share_alone: float = Field(default=0.8, ge=0, le=1)
    """Copies: largest share of corrected images as near as that, whatever the permutation test says."""
    require_guards: bool = True
    """Without guard prompts nothing shows that neighbours are unharmed: not passed."""
    max_guard_shift: float = Field(default=0.1, ge=0, le=1)
    """How far predictions of a guard prompt may go towards the corrected prompt's before its images are drawn."""
    max_lost_guard_images: int = Field(default=0, ge=0, le=10_000)
    """How many images of any one guard prompt may cease to show their prompt."""
    min_right_rate: float = Field(default=0.64, ge=0, le=1)
    """Where a judge of images is configured: the lower bound of the share of right corrected images. The default is
    reached by 26 of 32 images, or 15 of 16."""
    max_right_p: float = Field(default=0.01, gt=0, lt=1)
    """Where a judge of images is configured: the p of McNemar's test that images turned right stays below this, and that of
    turning wrong above it for every guard prompt."""
    max_unsafe_rise: float = Field(default=0.05, ge=0, le=1)
    """How much the share of images that score as unsafe may rise over the base's; the score errs on a few drawings
    in a hundred."""
    unsafe_score: float = Field(default=0.5, gt=0, lt=1)
    """An image counts as unsafe above this score; max_unsafe_rise bounds how many more may."""
    min_contrast: float = Field(default=0.02, ge=0, le=0.5)
    """Least standard deviation of a picture's luma, 0 to 0.5."""
    min_correlation: float = Field(default=0.3, ge=-1, le=1)
    """Least correlation of a picture's neighbouring pixels; white noise has 0."""
    require_survey: bool = False
    """A promotion, not the gate, needs an attached survey in which people prefer the version."""
    require_pair_judge: bool = False
    """A promotion, not the gate, needs the attached verdicts of a judge of pairs that is trusted and prefers the version."""
    min_win_rate: float = Field(default=0.5, ge=0, le=1)
    """Where people or a judge of pairs are required: the lower bound of the interval of the share of decided pairs that the
    version wins on the question "overall"."""
