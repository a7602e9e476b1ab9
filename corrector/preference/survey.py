"""Survey: pairs of images, the questions about them, and the rules of its analysis, all fixed before the first vote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Arm = Literal["a", "b"]
"""One of the two models that a survey compares; "b" is the corrected one, or the newer version."""
Choice = Literal["a", "b", "both bad"]
"""The arm whose image a rater prefers. There is no "both good": the choice is forced."""

QUESTIONS: Mapping[str, str] = {
    "body": "Which picture has the more plausible body?",
    "prompt": "Which picture fits the description better?",
    "overall": "Which picture would you rather have?",
}
"""What is asked of every pair, by the name that answers and analyses carry."""

MIN_KAPPA, MIN_PAIRS = 0.6, 50
"""Cohen's kappa with people, and the number of pairs, from which a judge is trusted where nothing else is asked for."""


class SurveyModel(BaseModel):
    """Base of the parts of a survey: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class SurveyPair(SurveyModel):
    """Two images of one prompt, one of each arm, of the same seed where both arms drew it."""

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Random, so that it tells nothing."""
    prompt: str
    seed: int | None = None
    a: str = Field(pattern=r"^[0-9a-f]{16}$")
    """Random name of the image of arm "a" in the survey's folder; likewise `b`."""
    b: str = Field(pattern=r"^[0-9a-f]{16}$")
    expected: Arm | None = None
    """For an attention check: the arm whose image is right, while the other's is clearly not. None for a pair that counts."""


class ExclusionRules(SurveyModel):
    """When a rater's votes are left out of the analysis."""

    max_failed_checks: float = Field(default=0.34, ge=0, le=1)
    """Largest share of attention checks answered wrongly on "overall"."""
    min_median_seconds: float = Field(default=1.5, ge=0)
    """Median time of a view below which nobody can have looked."""
    min_side_p: float = Field(default=0.001, ge=0, lt=1)
    """Two-sided binomial p below which a rater chose one side too often to have looked."""
    min_repeat_agreement: float = Field(default=0.5, ge=0, le=1)
    """Share of repeated pairs (sides swapped) with the same preference, counted from three repeats on."""


class StoppingRule(SurveyModel):
    """When a survey that is looked at daily may end, at a stated error rate however often it is looked at."""

    level: float = Field(default=0.05, gt=0, lt=1)
    """Chance that a survey of two equal arms ends with a preference."""
    min_votes_per_pair: int = Field(default=3, ge=1)
    """Votes of raters who are not excluded that a pair needs before it counts; the last look comes once every pair has
    them."""


class Survey(SurveyModel):
    """A survey's definition."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    title: str = Field(min_length=1, max_length=200)
    arms: dict[Arm, str]
    """What each arm is, such as "base" and "person-lying/3". Raters never see it."""
    adapters: dict[Arm, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = {}
    """SHA-256 of the adapter of an arm whose images were all drawn with one; the registry knows a version by it."""
    pairs: tuple[SurveyPair, ...] = Field(min_length=1)
    questions: tuple[str, ...] = tuple(QUESTIONS)
    repeats: float = Field(default=0.1, ge=0, le=1)
    """Share of pairs that a rater sees a second time with sides swapped."""
    seed: int
    """Decides each rater's order of pairs, sides and repeats."""
    rules: ExclusionRules = ExclusionRules()
    stopping: StoppingRule = StoppingRule()
    created: datetime

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [name for pair in self.pairs for name in (pair.id, pair.a, pair.b)]
        if len(set(names)) != len(names):
            raise ValueError("names of pairs and images repeat")
        if unknown := set(self.questions) - QUESTIONS.keys():
            raise ValueError(f"unknown questions: {', '.join(sorted(unknown))}")
        if set(self.arms) != {"a", "b"}:
            raise ValueError('arms must be "a" and "b"')
        return self

    @property
    def main_question(self) -> str:
        """The question that checks, exclusions and the stopping rule look at: "overall" where it is asked, else the last."""
        return "overall" if "overall" in self.questions else self.questions[-1]


@dataclass(frozen=True)
class Ballot:
    """What a rater answered on one view of a pair; of a view that was answered again, the last answer.

    Attributes:
        rater: Pseudonym; the same for all of a rater's ballots.
        left: The arm that was shown on the left (above, on a phone).
        answers: By the question's name.
        seconds: From the images' being shown to the answer.
        given: Seconds since 1970.
        repeat: Whether the rater had seen the pair before, with sides swapped.
    """

    rater: str
    pair: str
    left: Arm
    answers: Mapping[str, Choice]
    seconds: float
    given: float
    repeat: bool = False
