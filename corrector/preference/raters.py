"""The exclusion rules: which raters' votes are left out, and why.

The rules look at sides, times, checks and repeats, never at which arm is preferred: if the arms of a pair swapped names, the
same raters would be excluded. Hence an exclusion cannot raise the error rate of the sign flips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corrector.preference.survey import ExclusionRules, SurveyModel

_LEAST_REPEATS = 3

Flags = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


class ScreenedRater(SurveyModel):
    """What the exclusion rules look at, for one rater."""

    rater: str
    views: int
    median_seconds: float
    checks: int
    failed_checks: int
    decided: int
    """Answers to the main question that chose a side."""
    left: int
    """Of those, how many chose the image on the left."""
    side_p: float
    """Two-sided binomial p of `left` of `decided`."""
    repeats: int
    agreed_repeats: int
    """Of the repeats, how many got the same answer as before."""
    excluded: tuple[str, ...]
    """Why the rater's votes are left out; empty for a rater whose votes count."""


@dataclass(frozen=True)
class RaterFigures:
    """The figures of `ScreenedRater` as arrays over raters."""

    views: Counts
    seconds: npt.NDArray[np.float64]
    checks: Counts
    failed: Counts
    decided: Counts
    left: Counts
    side_p: npt.NDArray[np.float64]
    repeats: Counts
    agreed: Counts

    def broken(self, rules: ExclusionRules) -> dict[str, Flags]:
        """By the name of a rule, which raters it excludes."""
        return {
            "max_failed_checks": self.failed > rules.max_failed_checks * self.checks,
            "min_median_seconds": self.seconds < rules.min_median_seconds,
            "min_side_p": self.side_p < rules.min_side_p,
            "min_repeat_agreement": (self.repeats >= _LEAST_REPEATS)
            & (self.agreed < rules.min_repeat_agreement * self.repeats),
        }

    def reason(self, rule: str, place: int, rules: ExclusionRules) -> str:
        """The rule and the rater's figures, in words."""
        return {
            "max_failed_checks": f"{self.failed[place]} of {self.checks[place]} attention checks failed "
            f"(at most {rules.max_failed_checks:.0%})",
            "min_median_seconds": f"median time of a view {self.seconds[place]:.2g} s "
            f"(at least {rules.min_median_seconds:g} s)",
            "min_side_p": f"{self.left[place]} of {self.decided[place]} choices on the left, "
            f"p = {self.side_p[place]:.1g} (at least {rules.min_side_p:g})",
            "min_repeat_agreement": f"{self.agreed[place]} of {self.repeats[place]} repeats answered alike "
            f"(at least {rules.min_repeat_agreement:.0%})",
        }[rule]
