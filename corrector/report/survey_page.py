"""The page of an attached survey: what people and the judge prefer, how far they agree, and the pairs that went worst."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corrector.evaluation.scorecard_figures import number, share_text
from corrector.preference.analysis import PairVotes
from corrector.preference.attached import AttachedSurvey
from corrector.report.images import InlineImage, inline_image
from corrector.report.page import write_page
from corrector.report.survey_texts import survey_texts

_WORST = 12
_LONGEST = 384
"""Pixels of an image's longer side."""


@dataclass(frozen=True)
class ShownPair:
    """A pair on the page; `a` and `b` are the images of the arms."""

    prompt: str
    a: InlineImage
    b: InlineImage
    votes: PairVotes
    judge: str


def write_survey_page(attached: AttachedSurvey, images: Path, path: Path, *, title: str) -> Path:
    """Write the page as one HTML file without scripts or references to anything outside; returns `path`.

    Text of users and models is escaped.

    Args:
        images: Folder of the survey's images.
    """
    return write_page(
        path,
        "survey.html.jinja",
        title=title,
        survey=attached.survey,
        attached=attached,
        texts=survey_texts(attached),
        questions=_question_rows(attached),
        agreement=_agreement_rows(attached),
        worst=_worst(attached, images),
    )


def _question_rows(attached: AttachedSurvey) -> list[tuple[str, ...]]:
    """A row for each question: its name, people's figures, and the judge's."""
    rows: list[tuple[str, ...]] = []
    for each in attached.analysis.questions:
        judged = attached.judge.question(each.question) if attached.judge else None
        rows.append(
            (
                each.question,
                f"{share_text(each.win_rate)} of {each.decided}",
                number(each.p, 2),
                "–" if each.both_bad is None else f"{each.both_bad:.0%}",
                number(each.alpha, 2),
                f"{share_text(judged.win_rate)} of {judged.decided}" if judged else "–",
                share_text(judged.flip_rate) if judged else "–",
            )
        )
    return rows


def _agreement_rows(attached: AttachedSurvey) -> list[tuple[str, ...]]:
    if attached.agreement is None:
        return []
    rows: list[tuple[str, ...]] = [
        (
            source.judge,
            question,
            "–" if found.kappa is None else str(found.kappa),
            share_text(found.agreement),
            str(found.pairs),
            number(found.mcnemar_p, 2),
            f"{source.trust.status}: {source.trust.reason}",
        )
        for source in (attached.agreement.pairs, attached.agreement.images)
        if source is not None
        for question, found in source.questions.items()
    ]
    return rows


def _worst(attached: AttachedSurvey, images: Path) -> list[ShownPair]:
    """The pairs with the lowest scores on the main question."""
    known = {pair.id: pair for pair in attached.survey.pairs}
    orders = attached.judge.orders(attached.survey.main_question) if attached.judge else {}
    found = []
    for votes in sorted(attached.people.pairs, key=lambda pair: pair.score)[:_WORST]:
        pair = known[votes.pair]
        one, other = orders.get(pair.id, ("", ""))
        judge = "" if not one else f"judge: {one}" if one == other else "judge: changes with the order"
        a, b = (inline_image(images / f"{name}.png", _LONGEST) for name in (pair.a, pair.b))
        found.append(ShownPair(pair.prompt, a, b, votes, judge))
    return found
