"""JudgeAgreement: how far a vision-language judge agrees with a survey's raters, and whether it is trusted."""

from __future__ import annotations

from collections.abc import Mapping

from corrector.detectors.trust import Trust
from corrector.evaluation.scorecard_figures import Interval
from corrector.preference.agreement import Agreement, agreement, consistent_verdicts, image_agreement
from corrector.preference.analysis import Analysis, PairVotes
from corrector.preference.judge_verdicts import JudgeVerdicts
from corrector.preference.survey import MIN_KAPPA, MIN_PAIRS, Choice, Survey, SurveyModel

AGREEMENT_FILE = "agreement.json"
"""In the survey's folder. `corrector.detectors.trust` reads the part `images`."""
IMAGE_QUESTION = "body"
"""The question by which people judge single images."""


class SourceAgreement(SurveyModel):
    """Agreement of one judge with people."""

    judge: str
    """Name, model and the instruction's digest."""
    questions: dict[str, Agreement]
    """People's verdicts are the first source's."""
    trust: Trust


class JudgeAgreement(SurveyModel):
    """Agreement of a survey's raters with the judge of its pairs, and with the judge of its single images."""

    survey: str
    min_kappa: float
    min_pairs: int
    pairs: SourceAgreement
    """Trusted by the survey's main question."""
    flip_rates: dict[str, Interval | None]
    """By question, the share of pairs on which the order changes the judge's verdict."""
    images: SourceAgreement | None
    """Trusted by `IMAGE_QUESTION`; None: single images were not judged."""


def judge_agreement(
    survey: Survey,
    analysis: Analysis,
    verdicts: JudgeVerdicts,
    *,
    min_kappa: float = MIN_KAPPA,
    min_pairs: int = MIN_PAIRS,
) -> JudgeAgreement:
    """Agreement on the pairs on which the kept raters have a verdict, and the judge one that the order does not change.

    On single images: see `image_agreement`. People prefer an image if more than half of a pair's votes do.
    """
    votes = {question.question: question.pairs for question in analysis.questions}
    questions = {
        question: agreement(
            {pair.pair: pair.verdict for pair in pairs if pair.verdict is not None},
            consistent_verdicts(verdicts.orders(question)),
            seed=survey.seed,
        )
        for question, pairs in votes.items()
    }
    images = None
    if verdicts.image_judge is not None and IMAGE_QUESTION in votes:
        right = {each.pair: each.right for each in verdicts.pairs if each.right is not None}
        preferred = {pair.pair: _majority(pair) for pair in votes[IMAGE_QUESTION]}
        found = {IMAGE_QUESTION: image_agreement(preferred, right, seed=survey.seed)}
        images = _source(verdicts.image_judge, found, IMAGE_QUESTION, min_kappa, min_pairs)
    return JudgeAgreement(
        survey=survey.id,
        min_kappa=min_kappa,
        min_pairs=min_pairs,
        pairs=_source(verdicts.judge, questions, survey.main_question, min_kappa, min_pairs),
        flip_rates={each.question: each.flip_rate for each in verdicts.questions},
        images=images,
    )


def _source(
    judge: str, questions: Mapping[str, Agreement], decides: str, min_kappa: float, min_pairs: int
) -> SourceAgreement:
    trust = questions[decides].trusted(min_kappa, min_pairs)
    return SourceAgreement(judge=judge, questions=dict(questions), trust=trust)


def _majority(pair: PairVotes) -> Choice:
    half = (pair.a + pair.b + pair.both_bad) / 2
    return "a" if pair.a > half else "b" if pair.b > half else "both bad"
