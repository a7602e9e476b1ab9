"""`python -m corrector.preference analyse SURVEY`: print the analysis of a survey, and write it as JSON."""

from __future__ import annotations

from pathlib import Path

from corrector.errors import UserError
from corrector.evaluation.scorecard_figures import number, share_text
from corrector.exemplars.files import printable
from corrector.files import write_atomically
from corrector.preference.analysis import Analysis, QuestionAnalysis, analyse
from corrector.preference.survey_folder import open_survey


def main_analyse(
    survey_folder: Path, database: str | None, out: Path | None, *, smallest_effect: float = 0.2
) -> int:
    """Print the analysis and write it to `out`; returns 0.

    Raises:
        UserError: There is no survey, its database cannot be used, or `out` cannot be written.
    """
    with open_survey(survey_folder, database) as (survey, store):
        analysis = analyse(survey, store.ballots(), smallest_effect=smallest_effect)
    for line in analysis_lines(analysis):
        print(printable(line))
    if out is not None:
        try:
            write_atomically(out, analysis.model_dump_json(indent=2) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {out}: {error.strerror}") from None
    return 0


def analysis_lines(analysis: Analysis) -> list[str]:
    """The analysis for a terminal."""
    lines = [
        f"{analysis.survey}: a is {analysis.arms['a']}, b is {analysis.arms['b']}",
        f"{analysis.ballots} ballots of {len(analysis.raters)} raters, {len(analysis.kept)} of them kept",
    ]
    lines += [
        f"excluded {rater.rater}: {'; '.join(rater.excluded)}" for rater in analysis.raters if rater.excluded
    ]
    for question in analysis.questions:
        lines += _question_lines(question)
    return [*lines, f"stopping rule: {analysis.stopping.decision}; {analysis.stopping.why}"]


def _question_lines(found: QuestionAnalysis) -> list[str]:
    if found.win_rate is None:
        return [f"{found.question}: no pair is decided"]
    seen, smallest = (
        "cannot be said" if more is None else str(more)
        for more in (found.power.more_at_effect_seen, found.power.more_at_smallest_effect)
    )
    wins = f"b wins {share_text(found.win_rate)} of {found.decided} decided pairs of {len(found.pairs)}"
    answers = f"both bad {_percent(found.both_bad)}, left {_percent(found.left_share)}"
    wanted = f"{smallest} at a mean score of {found.power.smallest_effect:g}"
    return [
        f"{found.question}: {wins}; mean score {number(found.mean_score)}, p = {number(found.p, 2)}",
        f"  {answers}, Krippendorff's alpha {number(found.alpha, 2)}",
        f"  more pairs for a power of {found.power.power:.0%}: {seen} at the mean score seen, {wanted}",
    ]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"
