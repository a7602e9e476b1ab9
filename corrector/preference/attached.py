"""AttachedSurvey: what people and a judge said about a registered version, as the registry stores it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from corrector.detectors.trust import Trust
from corrector.errors import UserError
from corrector.evaluation.scorecard_figures import Interval
from corrector.preference.analysis import Analysis, QuestionAnalysis
from corrector.preference.judge_agreement import JudgeAgreement
from corrector.preference.judge_verdicts import JudgedQuestion, JudgeVerdicts
from corrector.preference.survey import Survey, SurveyModel

ATTACHED_FILE = "survey.json"
"""Among the artifacts of a version's run, and in a record folder that came from the registry."""
_UNKNOWN = Trust(status="advisory", reason="it was not compared with people")


class AttachedSurvey(SurveyModel):
    """A survey that compares a version (arm "b") with another model, and its results."""

    survey: Survey
    analysis: Analysis
    judge: JudgeVerdicts | None
    agreement: JudgeAgreement | None
    attached: datetime

    @classmethod
    def load(cls, file: Path, sha256: str | None) -> AttachedSurvey:
        """Read `file`, of the adapter with this SHA-256.

        Raises:
            UserError: It cannot be read, or is about another adapter.
        """
        try:
            found = cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{file.name}: is no attached survey: {error}; attach it again") from error
        found.check(sha256)
        return found

    def check(self, sha256: str | None) -> None:
        """Raises UserError where arm "b" is not the adapter with this SHA-256."""
        adapter = self.survey.adapters.get("b")
        if adapter is None or adapter != sha256:
            known = f"the adapter {adapter[:12]}" if adapter else "no single adapter"
            raise UserError(
                f'survey {self.survey.id}: its arm "b" is {self.survey.arms["b"]}, {known}, and not the adapter '
                f"{(sha256 or 'none')[:12]}; make a survey of this version with `make --version`, or of its own record"
            )

    @property
    def people(self) -> QuestionAnalysis:
        """The analysis of the survey's main question."""
        wanted = self.survey.main_question
        return next(each for each in self.analysis.questions if each.question == wanted)

    @property
    def judged(self) -> JudgedQuestion | None:
        """What the judge says on the same question; None without a judge."""
        return self.judge.question(self.survey.main_question) if self.judge else None

    @property
    def trust(self) -> Trust:
        """Whether the judge's verdicts may decide."""
        return self.agreement.pairs.trust if self.agreement else _UNKNOWN

    def tags(self) -> dict[str, str]:
        """Tags of the version, by which MLflow's pages can filter."""
        people, judged = self.people, self.judged
        found: dict[str, Any] = _rates("survey", people.win_rate) | {
            "survey.pairs": len(people.pairs),
            "survey.p": _figure(people.p),
            "survey.raters": len(self.analysis.kept),
        }
        if self.judge is not None and judged is not None:
            found |= _rates("judge", judged.win_rate) | {
                "judge.name": self.judge.judge,
                "judge.pairs": judged.consistent,
                "judge.p": _figure(judged.p),
                "judge.trusted": str(self.trust.status == "trusted").lower(),
            }
            if judged.flip_rate is not None:
                found["judge.flip_rate"] = _figure(judged.flip_rate.value)
        if self.agreement is not None:
            kappa = self.agreement.pairs.questions[self.survey.main_question].kappa
            if kappa is not None:
                found["judge.kappa"] = _figure(kappa.value)
        return {name: str(value) for name, value in found.items()}


def _rates(source: str, win_rate: Interval | None) -> dict[str, Any]:
    if win_rate is None:
        return {}
    return {f"{source}.win_rate": _figure(win_rate.value), f"{source}.win_rate_low": _figure(win_rate.low)}


def _figure(value: float) -> str:
    return f"{value:.4g}"
