"""The scorecard of one correction: its measurements, the looks at its images and the gate's verdict, as stored in JSON."""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field, field_validator

from corrector.evaluation.scorecard_figures import Figure, FrozenModel
from corrector.evaluation.scorecard_parts import (
    DistanceScore,
    DiversityScore,
    FalseRouteScore,
    GuardScore,
    NearerScore,
    NearestScore,
    PredictionShift,
    SafetyScore,
    SanityScore,
    SimilarityScore,
    VerdictScore,
)
from corrector.prompts import EvaluationSettings, GateThresholds
from corrector.prompts.gate_thresholds import Grade


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
    """All checks; passed where every one of them did.

    `grade` says what a passed gate has shown: "improved" (nearer to the exemplars) or "fixed" (a judge calls the images
    right). `unknown` is what it could not know, in words.
    """

    passed: bool
    reasons: tuple[Check, ...]
    grade: Grade | None = None
    unknown: tuple[str, ...] = ()


class Look(FrozenModel):
    """What the prompt's own images said when so many pairs were drawn: draw more, passed, or refused."""

    n: int = Field(description="Pairs drawn.")
    most: int = Field(description="Pairs of the whole protocol.")
    share: float = Field(description="Share of the gate's max_p that this look may spend.")
    decision: Literal["more", "passed", "refused"]
    why: str


class Measurements(FrozenModel):
    """All measurements of one correction, without a verdict."""

    prompt_name: str
    n: int = Field(description="Images of each arm.")
    n_training: int
    n_held_out: int
    pair_seeds: tuple[int, ...]
    settings: EvaluationSettings
    nearer: tuple[NearerScore, ...] = ()
    distances: tuple[DistanceScore, ...] = ()
    similarity: tuple[SimilarityScore, ...] = ()
    diversity: tuple[DiversityScore, ...] = ()
    nearest_training: tuple[NearestScore, ...] = ()
    guard_shifts: tuple[PredictionShift, ...] = ()
    guards: tuple[GuardScore, ...] = ()
    negative_shifts: tuple[PredictionShift, ...] = ()
    false_route: FalseRouteScore | None = Field(
        default=None, description="None where it was not measured, as in the scorecards of earlier versions."
    )
    safety: SafetyScore | None = None
    verdicts: VerdictScore | None = Field(default=None, description="None without a judge of images.")
    sanity: SanityScore
    looks: tuple[Look, ...] = Field(
        default=(),
        description="The looks at the prompt's own images, where drawing could stop; the last decided.",
    )
    not_run: tuple[NotRun, ...] = ()

    @property
    def decisive_verdicts(self) -> VerdictScore | None:
        """The verdicts that the gate follows; None without a judge, or with one that is advisory."""
        return self.verdicts if self.verdicts and self.verdicts.advisory is None else None

    def figures(self) -> list[Figure]:
        """Every figure that was measured, in the order in which reports show them."""
        found = list(self.verdicts.figures()) if self.verdicts else []
        found += [figure for test in self.nearer for figure in test.figures()]
        found += [figure for distance in self.distances for figure in distance.figures()]
        found += [figure for diversity in self.diversity for figure in diversity.figures()]
        found += [figure for nearest in self.nearest_training for figure in nearest.figures()]
        found += [figure for similarity in self.similarity for figure in similarity.figures()]
        found += _largest_shift("guard prompt", self.guard_shifts, "guard_shift", gates=True)
        worst = max(self.guards, key=lambda guard: guard.drop, default=None)
        found += [
            guard.figure({"guard_drop_worst": guard.drop} if guard is worst else {}) for guard in self.guards
        ]
        found += _largest_shift("hard negative", self.negative_shifts, "negative_shift", gates=False)
        for last in (self.false_route, self.safety, self.sanity):
            found += last.figures() if last is not None else ()
        return found


class Scorecard(Measurements):
    """The measurements of one correction and the gate's verdict on them.

    `Scorecard.model_validate_json(card.model_dump_json())` equals `card`.
    """

    thresholds: GateThresholds
    verdict: GateVerdict

    @field_validator("thresholds", mode="before")
    @classmethod
    def _without_former_thresholds(cls, thresholds: object) -> object:
        if not isinstance(thresholds, dict):
            return thresholds
        return {name: value for name, value in thresholds.items() if name in GateThresholds.model_fields}

    @property
    def metrics(self) -> dict[str, float]:
        """What MLflow logs: the verdict, the number of images of each arm, and every figure's metrics."""
        found = {"gate_passed": float(self.verdict.passed), "images": float(self.n)}
        for figure in self.figures():
            found |= figure.metrics
        return found


def _largest_shift(
    kind: str, shifts: Sequence[PredictionShift], metric: str, *, gates: bool
) -> Iterator[Figure]:
    if not shifts:
        return
    most = max(shifts, key=lambda shift: shift.largest)
    yield Figure(
        f"largest shift of a {kind}", None, most.largest, most.n, unit="share", better="lower", gates=gates,
        note=f'of predictions for "{most.prompt}", towards the corrected prompt\'s',
        logged={metric: most.largest},
    )  # fmt: skip
