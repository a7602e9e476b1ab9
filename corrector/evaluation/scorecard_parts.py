"""The measured parts of a scorecard, with n, pairing and extractor, as they are stored in JSON.

A part with figures yields them; a new figure is defined beside its fields.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from corrector.evaluation.scorecard_figures import Figure, FrozenModel, Interval, interval_metrics, number
from corrector.prompts.variations import Difference


class NearerScore(FrozenModel):
    """The paired tests of one extractor: by how much the corrected images lie nearer to the held-out exemplars.

    `reduction` is the mean difference to their pairs as a share of the base's mean distance, `p` the one-sided p of its sign
    flips; `restyled_*` the same against the base's images in the style of their pairs.
    """

    extractor: str
    n: int = Field(description="Images of each arm.")
    n_reference: int = Field(description="Held-out exemplars.")
    reduction: float
    p: float
    restyled_reduction: float
    restyled_p: float
    permutations: int

    @property
    def beyond_style(self) -> float:
        """The share of the reduction that is left against the re-styled base; 0 where nothing came nearer."""
        return self.restyled_reduction / self.reduction if self.reduction > 0 else 0.0

    def figures(self) -> Iterator[Figure]:
        """Both tests."""
        for against, reduction, p, key in (
            ("the base", self.reduction, self.p, "nearer"),
            ("the re-styled base", self.restyled_reduction, self.restyled_p, "nearer_restyled"),
        ):
            yield Figure(
                f"nearer than {against}, {self.extractor}", None, None, self.n, self.n_reference, p=p, gates=True,
                note=f"mean distance falls by {reduction:.1%}; sign flips of pairs, at most {self.permutations}",
                logged={f"{key}_{self.extractor}": reduction, f"{key}_p_{self.extractor}": p},
            )  # fmt: skip


class DistanceScore(FrozenModel):
    """Fréchet and kernel distances of both arms to the held-out exemplars in one extractor's features."""

    extractor: str
    metric: str = Field(description='Name of the Fréchet distance: "fid_" and the extractor.')
    n: int = Field(description="Images of each arm.")
    n_reference: int = Field(description="Held-out exemplars.")
    fid_base: float
    fid_corrected: float
    fid_base_interval: Interval
    fid_corrected_interval: Interval
    fid_difference: Interval = Field(description="Corrected minus base, paired.")
    kid_base: float
    kid_corrected: float

    def figures(self) -> Iterator[Figure]:
        """FID and KID."""
        change, n, k = self.fid_difference, self.n, self.n_reference
        yield Figure(
            self.metric, self.fid_base_interval, self.fid_corrected_interval, n, k, change=change, better="lower",
            headline=True, note=f"Fréchet distance; {change.level:.0%} {change.method}",
        )  # fmt: skip
        yield Figure(
            f"kid_{self.extractor}", self.kid_base, self.kid_corrected, n, k, better="lower", note="kernel distance"
        )  # fmt: skip


class SimilarityScore(FrozenModel):
    """SSIM (grey) and PSNR (RGB, dB, averaged over pairs) to exemplars; the gate does not use them."""

    against: Literal["held-out", "training"]
    pairing: Literal["all pairs", "best exemplar"]
    n: int
    n_reference: int
    side: int = Field(description="Pixels of the longer side at which they were compared.")
    ssim_base: float
    ssim_corrected: float
    psnr_base: float
    psnr_corrected: float

    def figures(self) -> Iterator[Figure]:
        where, n, k = f"{self.against}, {self.pairing}", self.n, self.n_reference
        ssim, psnr = f"grey, {self.side} px", f"RGB, {self.side} px"
        yield Figure(f"SSIM, {where}", self.ssim_base, self.ssim_corrected, n, k, note=ssim)
        yield Figure(f"PSNR, {where}", self.psnr_base, self.psnr_corrected, n, k, unit="dB", note=psnr)


class DiversityScore(FrozenModel):
    """How much the images of one arm differ among themselves; `ratio` is corrected over base."""

    measure: str
    gates: bool
    n: int
    base: float
    corrected: float
    ratio: float

    def figures(self) -> Iterator[Figure]:
        yield Figure(
            f"diversity, {self.measure}", self.base, self.corrected, self.n, better="higher", gates=self.gates,
            note=f"{self.ratio:.2f} of the base's",
            logged={f"diversity_ratio_{self.measure}".replace(" ", "_"): self.ratio},
        )  # fmt: skip


class NearestScore(FrozenModel):
    """Distances of images to training exemplars, beside the distances of exemplars to each other.

    `percentile` percent of exemplars are farther than `bound` from the nearest other training exemplar; `near_*` is the
    share of images that are nearer than `bound`, `training_*` the share whose nearest exemplar is a training one
    (`training_expected` if training and held-out exemplars were alike), `preference_p` the p of the permutation test whether
    corrected images prefer training exemplars to held-out ones; None without held-out exemplars.
    """

    extractor: str
    through_vae: bool = Field(description="Whether the exemplars were compared as the base's VAE draws them.")
    n: int
    n_exemplars: int
    percentile: float
    bound: float
    near_base: float
    near_corrected: float
    median_base: float
    median_corrected: float
    median_exemplars: float
    training_base: float
    training_corrected: float
    training_expected: float
    preference_p: float | None = None

    def figures(self) -> Iterator[Figure]:
        """The share of images that are nearer to a training exemplar than exemplars are to each other."""
        seen = ", seen through the VAE" if self.through_vae else ""
        prefer = (
            ""
            if self.preference_p is None
            else f"; prefer training exemplars with p = {number(self.preference_p, 2)}"
        )
        yield Figure(
            f"copies of training exemplars, {self.extractor}", self.near_base, self.near_corrected, self.n,
            self.n_exemplars, unit="share", better="lower", gates=True,
            note=f"share nearer than {number(self.bound)}; {self.percentile:g} % of exemplars are farther{seen}{prefer}",
            logged={f"near_training_{self.extractor}": self.near_corrected},
        )  # fmt: skip


class GuardScore(FrozenModel):
    """Damage to one guard prompt; `corrector.evaluation.guards` has the measures."""

    prompt: str
    n: int
    kept_base: float = Field(
        description="Share of base images recognised as this prompt's, mean over extractors."
    )
    kept_corrected: float
    drop: float = Field(description="kept_base less kept_corrected: the damage, as a share of images.")
    lost: int = Field(
        default_factory=lambda data: max(0, round(data["drop"] * data["n"])),
        description="Images recognised before and not after, in as many extractors as the gate wants.",
    )
    kept_by_extractor: dict[str, tuple[float, float]]
    change: float | None = Field(
        description="Feature distance before to after, over that of two seeds of the base; None for one."
    )
    ssim: float = Field(description="Grey SSIM of before and after, mean over seeds.")
    passed: bool
    note: str

    def figure(self, logged: dict[str, float]) -> Figure:
        """The share of images that are recognised."""
        return _neighbour_figure("guard", self, logged, gates=True)


class PredictionShift(FrozenModel):
    """How far the adapter moves the first prediction for a guard prompt or hard negative.

    `corrector.evaluation.guard_shift` has the measure. Images are drawn where `largest` is above the gate's `max_guard_shift`.
    """

    prompt: str
    n: int = Field(description="Noises.")
    largest: float = Field(
        description="Of the way from the base's prediction to that of the corrected prompt."
    )
    mean: float


class HardNegativeScore(FrozenModel):
    """Harm of the adapter to one hard negative: a prompt near the corrected one that means something else.

    The measures are those of a guard prompt, by `corrector.evaluation.false_routes`. Where `kept_base` is low, the base
    already draws the prompt like the failing one, so that `drop` says little.
    """

    prompt: str
    difference: Difference = Field(description="Kind of its difference from the corrected prompt.")
    n: int
    kept_base: float = Field(
        description="Share of base images recognised as this prompt's and not the failing one's, mean over extractors."
    )
    kept_corrected: float
    drop: float = Field(description="kept_base less kept_corrected: the harm, as a share of images.")
    kept_by_extractor: dict[str, tuple[float, float]]
    change: float | None = Field(
        description="Feature distance before to after, over that of two seeds of the base; None for one."
    )
    ssim: float = Field(description="Grey SSIM of before and after, mean over seeds.")
    note: str


class FalseRouteScore(FrozenModel):
    """The harm of a false route: a router sends hard negatives through the adapter by mistake.

    The gate does not use it, because the mistake is the router's. The shares are over all images of hard negatives; where
    predictions told which of them the adapter moves, of those only.
    """

    n: int = Field(description="Images of each arm.")
    kept_base: float = Field(
        description="Share of base images recognised as their prompt's, mean over extractors."
    )
    kept_corrected: float
    drop: Interval = Field(description="kept_base less kept_corrected, paired; for these prompts.")
    change: float | None = Field(description="Mean over the hard negatives that have one.")
    negatives: tuple[HardNegativeScore, ...]

    def figures(self) -> Iterator[Figure]:
        """The share of images that are recognised, of all hard negatives and of each."""
        yield Figure(
            "false route, all hard negatives", self.kept_base, self.kept_corrected, self.n, unit="share",
            change=-self.drop, better="higher",
            note=f"images of {len(self.negatives)} prompts recognised as their prompt's; "
            f"{self.drop.level:.0%} {self.drop.method}",
            logged=interval_metrics("false_route_drop", self.drop),
        )  # fmt: skip
        for negative in self.negatives:
            yield _neighbour_figure("false route", negative, {}, gates=False)


class RightImages(FrozenModel):
    """Which images of one prompt a judge calls right; place i of both arms has the same text and seed."""

    prompt: str
    base: tuple[bool, ...]
    corrected: tuple[bool, ...]
    p_better: float = Field(description="McNemar's exact p that images turned right by chance.")
    p_worse: float = Field(description="The same that images turned wrong by chance.")


class VerdictScore(FrozenModel):
    """A judge's verdicts on the images of the prompt and of its guard prompts."""

    judge: str
    advisory: str | None = Field(
        default=None,
        description="Why the gate does not follow the verdicts; None: it does.",
    )
    right_base: Interval = Field(description="Share of the prompt's images that are right.")
    right_corrected: Interval
    own: RightImages
    guards: tuple[RightImages, ...]

    def figures(self) -> Iterator[Figure]:
        """The share of right images of the prompt and of each guard prompt."""
        n, decides = len(self.own.base), self.advisory is None
        advice = "" if decides else f"; advisory: {self.advisory}"
        yield Figure(
            f"right images, by {self.judge}", self.right_base, self.right_corrected, n, unit="share", better="higher",
            gates=decides, headline=True, note=f"McNemar's exact p = {number(self.own.p_better, 2)}{advice}",
            logged={"right_base": self.right_base.value, "right_corrected": self.right_corrected.value,
                    "right_p": self.own.p_better},
        )  # fmt: skip
        for guard in self.guards:
            before, after = (sum(arm) / len(arm) for arm in (guard.base, guard.corrected))
            yield Figure(
                f"right images of guard: {guard.prompt}", before, after, len(guard.base), unit="share", better="higher",
                gates=decides, note=f"McNemar's exact p of harm = {number(guard.p_worse, 2)}", logged={},
            )  # fmt: skip


class SafetyScore(FrozenModel):
    """Images whose probability of being unsafe for work exceeds the threshold, guard prompts included."""

    scorer: str
    threshold: float
    n: int
    unsafe_base: int
    unsafe_corrected: int
    highest_base: float
    highest_corrected: float

    def figures(self) -> Iterator[Figure]:
        yield Figure(
            "unsafe images", self.unsafe_base, self.unsafe_corrected, self.n, unit="images", better="lower",
            gates=True, note=f"score above {self.threshold:g} in {self.scorer}",
            logged={"unsafe_images": float(self.unsafe_corrected)},
        )  # fmt: skip


class Fault(FrozenModel):
    """One image that is flat, noise, not finite or out of range."""

    arm: Literal["base", "corrected"]
    prompt: str
    index: int
    fault: str


class SanityScore(FrozenModel):
    """The number of images that were checked, and the faulty ones."""

    n: int
    faults: tuple[Fault, ...]

    def figures(self) -> Iterator[Figure]:
        """The number of images that are no pictures."""
        base, corrected = (sum(fault.arm == arm for fault in self.faults) for arm in ("base", "corrected"))
        yield Figure(
            "images that are no pictures", base, corrected, self.n, unit="images", better="lower", gates=True,
            note="flat, noise or not finite", logged={},
        )  # fmt: skip


def _neighbour_figure(
    kind: str, score: GuardScore | HardNegativeScore, logged: dict[str, float], *, gates: bool
) -> Figure:
    moved = "" if score.change is None else f"; moved by {number(score.change, 2)} of two seeds' distance"
    note = f"images recognised as this prompt's; SSIM of before and after {number(score.ssim, 2)}{moved}"
    return Figure(
        f"{kind}: {score.prompt}", score.kept_base, score.kept_corrected, score.n, unit="share", better="higher",
        gates=gates, note=note, logged=logged,
    )  # fmt: skip
