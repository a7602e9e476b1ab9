"""`python -m corrector.preference judge|agree SURVEY`: ask the judge about a survey's pairs, and compare it with people."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from corrector.detectors.judge_settings import JudgeSettings
from corrector.detectors.paid_chat import sending_is_confirmed
from corrector.errors import UserError
from corrector.evaluation.scorecard_figures import number, share_text
from corrector.exemplars.files import printable
from corrector.files import write_atomically
from corrector.preference.agreement import Agreement
from corrector.preference.analysis import analyse
from corrector.preference.judge import PairJudge
from corrector.preference.judge_agreement import AGREEMENT_FILE, JudgeAgreement, judge_agreement
from corrector.preference.judge_verdicts import JUDGE_FILE, JudgeVerdicts
from corrector.preference.survey_folder import open_survey, read_survey

Model = TypeVar("Model", bound=BaseModel)


def main_judge(folder: Path, *, yes: bool, images: bool) -> int:
    """Ask the judge, and write its verdicts into the survey's folder; 1: nothing was sent, or the judge stopped early.

    Args:
        yes: Send images without asking.
        images: Let the judge of single images judge each image, too.

    Raises:
        UserError: There is no survey, the judge is not configured, or an image cannot be read.
    """
    survey = read_survey(folder)
    judge = PairJudge(JudgeSettings.from_environment(), images=images)
    print(judge.sends(survey))
    if not (yes or sending_is_confirmed()):
        print("nothing was sent; add --yes to judge")
        return 1
    verdicts = judge.judge(survey, folder)
    _write(folder / JUDGE_FILE, verdicts)
    for line in _verdict_lines(verdicts):
        print(printable(line))
    if verdicts.stopped:
        print(printable(f"stopped: {verdicts.stopped}"), file=sys.stderr)
    return 1 if verdicts.stopped else 0


def main_agree(folder: Path, database: str | None, *, min_kappa: float, min_pairs: int) -> int:
    """Compare the judge's verdicts with people's, and write their agreement into the survey's folder; returns 0.

    Raises:
        UserError: There is no survey, the judge was not asked, or the database cannot be used.
    """
    verdicts = read_verdicts(folder)
    if verdicts is None:
        raise UserError(f"{folder}: no {JUDGE_FILE}; run `python -m corrector.preference judge {folder}`")
    with open_survey(folder, database) as (survey, store):
        analysis = analyse(survey, store.ballots())
    found = judge_agreement(survey, analysis, verdicts, min_kappa=min_kappa, min_pairs=min_pairs)
    _write(folder / AGREEMENT_FILE, found)
    for line in _agreement_lines(found):
        print(printable(line))
    return 0


def read_verdicts(folder: Path) -> JudgeVerdicts | None:
    """The judge's verdicts on the survey in `folder`; None: it was not asked.

    Raises:
        UserError: They cannot be read, or are about another survey.
    """
    found = _read(folder / JUDGE_FILE, JudgeVerdicts)
    if found is not None and found.survey != read_survey(folder).id:
        raise UserError(
            f"{folder / JUDGE_FILE}: is about the survey {found.survey}; remove it and run `judge` again"
        )
    return found


def read_agreement(folder: Path) -> JudgeAgreement | None:
    """The agreement that `main_agree` wrote, as `read_verdicts`."""
    return _read(folder / AGREEMENT_FILE, JudgeAgreement)


def _read(path: Path, kind: type[Model]) -> Model | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise UserError(f"{path}: cannot be read: {error}; remove it and run the command again") from error


def _write(path: Path, model: BaseModel) -> None:
    try:
        write_atomically(path, model.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def _verdict_lines(verdicts: JudgeVerdicts) -> Iterator[str]:
    silent = [pair for pair in verdicts.pairs if pair.orders is None]
    yield f"{verdicts.judge}: verdicts on {len(verdicts.pairs) - len(silent)} of {len(verdicts.pairs)} pairs"
    for each in verdicts.questions:
        wins = f"prefers b in {share_text(each.win_rate)} of {each.decided} decided pairs, p = {number(each.p, 2)}"
        yield f"{each.question}: {wins}; the order changes {share_text(each.flip_rate)} of the verdicts"


def _agreement_lines(found: JudgeAgreement) -> Iterator[str]:
    for source in filter(None, (found.pairs, found.images)):
        yield f"{source.judge}: {source.trust.status}: {source.trust.reason}"
        for question, agreement in source.questions.items():
            yield f"  {question}: {_agreement_text(agreement)}"
            for label, row in zip(agreement.labels, agreement.confusion, strict=True):
                counts = ", ".join(
                    f"{count} {other}" for count, other in zip(row, agreement.labels, strict=True)
                )
                yield f"    people say {label}, the judge: {counts}"
    for question, rate in found.flip_rates.items():
        yield f"the order changes {share_text(rate)} of the judge's verdicts on {question}"


def _agreement_text(found: Agreement) -> str:
    kappa = "not defined" if found.kappa is None else str(found.kappa)
    return (
        f"kappa {kappa} on {found.pairs} pairs, the same verdict in {share_text(found.agreement)}, "
        f"McNemar's p = {number(found.mcnemar_p, 2)}"
    )
