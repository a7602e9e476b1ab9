"""The scorecard of one correction: its measurements with n, pairing and extractor, as they are stored in JSON.

Each part yields its figures; a new figure is defined beside its fields.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from corrector.evaluation.scorecard_figures import Figure, FrozenModel, Interval, interval_metrics, number
from corrector.prompts import EvaluationSettings, GateThresholds
from corrector.prompts.variations import Difference


class DistanceScore(FrozenModel):
    """Distances of both arms to the held-out exemplars in one extractor's features.

    `relative_mmd` is the squared MMD of the base less that of the corrected arm, `relative_mmd_p` the
    one-sided p of its permutation test within seed pairs.
    """

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
    relative_mmd: float
    relative_mmd_p: float
    permutations: int

    def figures(self) -> Iterator[Figure]:
        """FID, KID and the relative-MMD test."""
        change, n, k = self.fid_difference, self.n, self.n_reference
        yield Figure(
            self.metric, self.fid_base_interval, self.fid_corrected_interval, n, k, change=change, better="lower",
            gates=True, headline=True, note=f"Fréchet distance; {change.level:.0%} {change.method}",
        )  # fmt: skip
        yield Figure(
            f"kid_{self.extractor}", self.kid_base, self.kid_corrected, n, k, better="lower", note="kernel distance"
        )  # fmt: skip
        yield Figure(
            f"relative MMD, {self.extractor}", None, None, n, k, p=self.relative_mmd_p, gates=True,
            note=f"test within seed pairs, {self.permutations} permutations",
            logged={f"relative_mmd_p_{self.extractor}": self.relative_mmd_p},
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
    """How much the images of one arm differ among themselves.

    `ratio` is corrected over the smaller of base and exemplars: a broken base is diverse because its
    anomalies are.
    """

    measure: str
    gates: bool
    n: int
    n_exemplars: int
    base: float
    corrected: float
    exemplars: float
    ratio: float
    ratio_to_base: float

    def figures(self) -> Iterator[Figure]:
        smaller = f"{self.ratio:.2f} of the smaller of base and exemplars ({number(self.exemplars)})"
        yield Figure(
            f"diversity, {self.measure}", self.base, self.corrected, self.n, better="higher", gates=self.gates,
            note=smaller, logged={f"diversity_ratio_{self.measure}".replace(" ", "_"): self.ratio},
        )  # fmt: skip


class NearestScore(FrozenModel):
    """Distances of images to training exemplars, beside the distances of exemplars to each other.

    `percentile` percent of exemplars are farther than `bound` from the nearest other training exemplar; `near_*` is the
    share of images that are nearer than `bound`, `training_*` the share whose nearest exemplar is a training one
    (`training_expected` if training and held-out exemplars were alike).
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

    def figures(self) -> Iterator[Figure]:
        """The share of images that are nearer to a training exemplar than exemplars are to each other."""
        seen = ", seen through the VAE" if self.through_vae else ""
        yield Figure(
            f"copies of training exemplars, {self.extractor}", self.near_base, self.near_corrected, self.n,
            self.n_exemplars, unit="share", better="lower", gates=True,
            note=f"share nearer than {number(self.bound)}; {self.percentile:g} % of exemplars are farther{seen}",
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

    The gate does not use it, because the mistake is the router's. The shares are over the images of all hard negatives.
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


class NotRun(FrozenModel):
    """A metric that was not run, and why."""

    name: str
    reason: str


class Check(FrozenModel):
    """One condition of the gate; `value` and `threshold` are None where nothing could be measured."""

    name: str
    passed: bool
    value: float | None
    threshold: float | None
    detail: str


class GateVerdict(FrozenModel):
    """All checks; passed where every one of them did."""

    passed: bool
    reasons: tuple[Check, ...]


class Measurements(FrozenModel):
    """All measurements of one correction, without a verdict."""

    prompt_name: str
    n: int = Field(description="Images of each arm.")
    n_training: int
    n_held_out: int
    pair_seeds: tuple[int, ...]
    settings: EvaluationSettings
    distances: tuple[DistanceScore, ...] = ()
    similarity: tuple[SimilarityScore, ...] = ()
    diversity: tuple[DiversityScore, ...] = ()
    nearest_training: tuple[NearestScore, ...] = ()
    guards: tuple[GuardScore, ...] = ()
    false_route: FalseRouteScore | None = Field(
        default=None, description="None where it was not measured, as in the scorecards of earlier versions."
    )
    safety: SafetyScore | None = None
    sanity: SanityScore
    not_run: tuple[NotRun, ...] = ()

    def figures(self) -> list[Figure]:
        """Every figure that was measured, in the order in which reports show them."""
        found = [figure for distance in self.distances for figure in distance.figures()]
        found += [figure for diversity in self.diversity for figure in diversity.figures()]
        found += [figure for nearest in self.nearest_training for figure in nearest.figures()]
        found += [figure for similarity in self.similarity for figure in similarity.figures()]
        worst = max(self.guards, key=lambda guard: guard.drop, default=None)
        found += [
            guard.figure({"guard_drop_worst": guard.drop} if guard is worst else {}) for guard in self.guards
        ]
        for last in (self.false_route, self.safety, self.sanity):
            found += last.figures() if last is not None else ()
        return found


class Scorecard(Measurements):
    """The measurements of one correction and the gate's verdict on them.

    `Scorecard.model_validate_json(card.model_dump_json())` equals `card`.
    """

    thresholds: GateThresholds
    verdict: GateVerdict

    @property
    def metrics(self) -> dict[str, float]:
        """What MLflow logs: the verdict, the number of images of each arm, and every figure's metrics."""
        found = {"gate_passed": float(self.verdict.passed), "images": float(self.n)}
        for figure in self.figures():
            found |= figure.metrics
        return found


def _neighbour_figure(
    kind: str, score: GuardScore | HardNegativeScore, logged: dict[str, float], *, gates: bool
) -> Figure:
    moved = "" if score.change is None else f"; moved by {number(score.change, 2)} of two seeds' distance"
    note = f"images recognised as this prompt's; SSIM of before and after {number(score.ssim, 2)}{moved}"
    return Figure(
        f"{kind}: {score.prompt}", score.kept_base, score.kept_corrected, score.n, unit="share", better="higher",
        gates=gates, note=note, logged=logged,
    )  # fmt: skip
