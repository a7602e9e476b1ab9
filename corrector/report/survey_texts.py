"""What people and a judge prefer in words, as the report, the model card and the registry show it."""

from __future__ import annotations

from corrector.evaluation.scorecard_figures import number, share_text
from corrector.preference.attached import AttachedSurvey


def survey_texts(attached: AttachedSurvey) -> list[tuple[str, str]]:
    """(source, text) of the people and, where it was asked, of the judge, on the survey's main question."""
    survey, analysis, people = attached.survey, attached.analysis, attached.people
    against = f"preferred to {survey.arms['a']} in"
    raters = f"{len(analysis.kept)} of {len(analysis.raters)} raters kept"
    text = (
        f"{against} {share_text(people.win_rate)} of {people.decided} decided pairs ({survey.main_question}, "
    )
    text += f"p = {number(people.p, 2)}, {raters}); stopping rule: {analysis.stopping.decision}"
    found = [("people", text)]
    if attached.judge is not None and (judged := attached.judged) is not None:
        text = f"{attached.judge.judge}: {against} {share_text(judged.win_rate)} of {judged.decided} decided pairs "
        text += (
            f"(p = {number(judged.p, 2)}; the order changes {share_text(judged.flip_rate)} of the verdicts); "
        )
        found.append(("judge", text + f"{attached.trust.status}: {attached.trust.reason}"))
    return found
