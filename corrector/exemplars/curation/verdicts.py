"""The results of curation: reasons, a verdict for each image, and one for the set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from corrector.exemplars.curation.decisions import Decisions
from corrector.exemplars.files import printable
from corrector.exemplars.provenance import Decision

Grade = Literal["effective", "doubtful", "not effective"]
GRADES: tuple[Grade, ...] = ("effective", "doubtful", "not effective")
"""From best to worst."""

REVIEW = "look at them with `python -m corrector.exemplars.curation FOLDER --page review.html`"
"""What to do about a refusal, first."""

_NAMED = 5


@dataclass(frozen=True)
class Reason:
    """What one check found wrong.

    Attributes:
        check: Name of the check: "sharpness".
        detail: The finding in words, with its figure and the threshold.
    """

    check: str
    grade: Grade
    detail: str

    def __str__(self) -> str:
        return f"{self.check}: {self.detail}"


def worst(reasons: Iterable[Reason]) -> Grade:
    """The worst grade of `reasons`; "effective" where there is none."""
    return max((reason.grade for reason in reasons), key=GRADES.index, default="effective")


@dataclass(frozen=True, eq=False)
class ImageVerdict:
    """The verdict on one image.

    Attributes:
        name: Its file's name.
        sha256: SHA-256 of its decoded pixels; None for a file that could not be decoded.
        image: `[3, R, R]` in 0..1, or None.
        decision: What a person decided about it, if anything.
    """

    name: str
    sha256: str | None
    image: Tensor | None
    reasons: tuple[Reason, ...]
    decision: Decision | None = None

    @property
    def grade(self) -> Grade:
        """The worst grade of its reasons."""
        return worst(self.reasons)

    @property
    def used(self) -> bool:
        """Whether it belongs to the curated set: as the person decided, else unless it is not effective."""
        if self.decision is not None:
            return self.decision.decision == "keep"
        return self.grade != "not effective"


@dataclass(frozen=True, eq=False)
class Curation:
    """The verdicts on a set.

    Attributes:
        images: In the order of the names.
        reasons: What is wrong with the set as a whole.
        teaches: What the set can teach, in sentences.
        lacks: What it cannot teach, and what was not checked, in sentences.
    """

    images: tuple[ImageVerdict, ...]
    reasons: tuple[Reason, ...]
    teaches: tuple[str, ...]
    lacks: tuple[str, ...]

    @property
    def grade(self) -> Grade:
        """The set's verdict: the worst grade of its reasons."""
        return worst(self.reasons)

    @property
    def used(self) -> tuple[ImageVerdict, ...]:
        """The images of the curated set."""
        return tuple(each for each in self.images if each.used)

    def refusal(self, name: str) -> str:
        """Why the exemplars of the prompt `name` are refused, with a few of their images; empty where they are not."""
        if self.grade != "not effective":
            return ""
        lines = [f"{name}: the exemplars are not effective"]
        lines += [str(reason) for reason in self.reasons if reason.grade == self.grade]
        unused = [each for each in self.images if not each.used]
        lines += [f"{printable(each.name)}: {'; '.join(map(str, each.reasons))}" for each in unused[:_NAMED]]
        lines += [f"and {len(unused) - _NAMED} images more"] * (len(unused) > _NAMED)
        return "\n  ".join(lines)

    def decided(self) -> Decisions:
        """The decisions of people, and a drop by `curation` for each other image that is not effective."""
        found = {each.sha256: each.decision for each in self.images if each.sha256 and each.decision}
        for each in self.images:
            if each.sha256 and each.sha256 not in found and not each.used:
                why = "; ".join(map(str, each.reasons))[:1000]
                found[each.sha256] = Decision(decision="drop", by="curation", why=why)
        return Decisions(decisions=found)
