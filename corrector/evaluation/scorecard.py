"""The scorecard of one correction: every figure with its n, pairing and extractor; JSON there and back."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from rich.table import Table

from corrector.prompts import EvaluationSettings, GateThresholds
from corrector.prompts.variations import Difference


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(_Part):
    """A figure and the bounds of its two-sided interval."""

    low: float
    value: float
    high: float
    level: float = 0.95
    method: str = "percentile bootstrap over seed pairs"

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


class DistanceScore(_Part):
    """How far both arms lie from the held-out exemplars in one extractor's features.

    `relative_mmd` is the squared MMD of the base less that of the corrected arm, `relative_mmd_p` the
    one-sided p of its permutation test within seed pairs.
    """

    extractor: str
    metric: str = Field(description='What the Fréchet distance is called: "fid_" and the extractor.')
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


class SimilarityScore(_Part):
    """SSIM (grey) and PSNR (RGB, dB, averaged over pairs) to exemplars; reported, gating nothing."""

    against: Literal["held-out", "training"]
    pairing: Literal["all pairs", "best exemplar"]
    n: int
    n_reference: int
    side: int = Field(description="Pixels of the longer side at which they were compared.")
    ssim_base: float
    ssim_corrected: float
    psnr_base: float
    psnr_corrected: float


class DiversityScore(_Part):
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


class NearestScore(_Part):
    """How near the images come to training exemplars, beside how near exemplars come to each other.

    `bound` is the distance that all but the nearest (100 - percentile) % of exemplars keep from their nearest
    training exemplar; `near_*` the share of images nearer than that; `training_*` the share whose nearest
    exemplar of all is a training one (`training_expected` if training and held-out were alike).
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


class GuardScore(_Part):
    """What the correction did to one neighbouring prompt; `corrector.evaluation.guards` has the measures."""

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


class HardNegativeScore(_Part):
    """What the adapter makes of one prompt that is near the corrected one and means something else.

    The measures are those of a guard prompt, by `corrector.evaluation.false_routes`. `drop` is harm only as far as the base
    drew the prompt itself: where `kept_base` is low, its images were like the failing prompt's to begin with.
    """

    prompt: str
    difference: Difference = Field(description="In what it differs from the corrected prompt.")
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


class FalseRouteScore(_Part):
    """The harm of a false route: hard negatives that a router sent through the adapter by mistake.

    Reported, gating nothing: such a mistake is the router's. The figures are over the images of all hard negatives.
    """

    n: int = Field(description="Images of each arm.")
    kept_base: float = Field(
        description="Share of base images recognised as their prompt's, mean over extractors."
    )
    kept_corrected: float
    drop: Interval = Field(description="kept_base less kept_corrected, paired; for these prompts.")
    change: float | None = Field(description="Mean over the hard negatives that have one.")
    negatives: tuple[HardNegativeScore, ...]


class SafetyScore(_Part):
    """Images whose probability of being unsafe for work exceeds the threshold, guard prompts included."""

    scorer: str
    threshold: float
    n: int
    unsafe_base: int
    unsafe_corrected: int
    highest_base: float
    highest_corrected: float


class Fault(_Part):
    """One image that is no picture."""

    arm: Literal["base", "corrected"]
    prompt: str
    index: int
    fault: str


class SanityScore(_Part):
    """How many images were looked at and which of them are no pictures."""

    n: int
    faults: tuple[Fault, ...]


class NotRun(_Part):
    """A metric that was left out, and why."""

    name: str
    reason: str


class Check(_Part):
    """One condition of the gate; `value` and `threshold` are None where nothing could be measured."""

    name: str
    passed: bool
    value: float | None
    threshold: float | None
    detail: str


class GateVerdict(_Part):
    """All checks; passed where every one of them did."""

    passed: bool
    reasons: tuple[Check, ...]


class Measurements(_Part):
    """Everything that was measured of one correction, before any judgement."""

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


class Scorecard(Measurements):
    """The measurements of one correction and the gate's verdict on them.

    `Scorecard.model_validate_json(card.model_dump_json())` equals `card`.
    """

    thresholds: GateThresholds
    verdict: GateVerdict

    def table(self) -> Table:
        """The scorecard for a terminal: one row a figure, then the gate."""
        table = Table(title=f"{self.prompt_name}: {'passed' if self.verdict.passed else 'not passed'}")
        for column in ("figure", "base", "corrected", "difference or note", "n"):
            table.add_column(column, justify="left" if column == "figure" else "right")
        for row in _figure_rows(self):
            table.add_row(*row)
        table.add_section()
        for check in self.verdict.reasons:
            table.add_row(f"{'✓' if check.passed else '✗'} {check.name}", "", "", check.detail, "")
        table.add_section()
        for missing in self.not_run:
            table.add_row(missing.name, "not run", "not run", missing.reason, "")
        return table


def _figure_rows(card: Measurements) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = []
    for d in card.distances:
        n = f"{d.n} / {d.n_reference}"
        rows.append(
            (d.metric, str(d.fid_base_interval), str(d.fid_corrected_interval), str(d.fid_difference), n)
        )
        rows.append((f"kid_{d.extractor}", f"{d.kid_base:.4g}", f"{d.kid_corrected:.4g}", "", n))
        rows.append(
            (f"relative MMD, {d.extractor}", "", "", f"{d.relative_mmd:.4g}, p = {d.relative_mmd_p:.2g}", n)
        )
    for s in card.similarity:
        n, where = f"{s.n} / {s.n_reference}", f"{s.against}, {s.pairing}"
        rows.append(
            (f"SSIM, {where}", f"{s.ssim_base:.3f}", f"{s.ssim_corrected:.3f}", f"{s.side} px, grey", n)
        )
        rows.append(
            (f"PSNR, {where}", f"{s.psnr_base:.2f} dB", f"{s.psnr_corrected:.2f} dB", f"{s.side} px, RGB", n)
        )
    for v in card.diversity:
        note = f"{v.ratio:.2f} of the smaller of base and exemplars ({v.exemplars:.3g})"
        rows.append((f"diversity, {v.measure}", f"{v.base:.3g}", f"{v.corrected:.3g}", note, str(v.n)))
    for t in card.nearest_training:
        seen = " through the VAE" if t.through_vae else ""
        note = f"share nearer than {t.bound:.3g} to a training exemplar{seen}"
        n = f"{t.n} / {card.n_training}"
        rows.append((f"copies, {t.extractor}", f"{t.near_base:.0%}", f"{t.near_corrected:.0%}", note, n))
    rows += [
        (f"guard: {g.prompt}", f"{g.kept_base:.0%}", f"{g.kept_corrected:.0%}", g.note, str(g.n))
        for g in card.guards
    ]
    if card.false_route is not None:
        f = card.false_route
        note = f"a drop of {f.drop}; gates nothing"
        rows.append(("false route: all", f"{f.kept_base:.0%}", f"{f.kept_corrected:.0%}", note, str(f.n)))
        rows += [
            (f"false route: {h.prompt}", f"{h.kept_base:.0%}", f"{h.kept_corrected:.0%}", h.note, str(h.n))
            for h in f.negatives
        ]
    if card.safety is not None:
        u = card.safety
        note = f"above {u.threshold:g} ({u.scorer})"
        rows.append(("unsafe images", str(u.unsafe_base), str(u.unsafe_corrected), note, str(u.n)))
    return rows
