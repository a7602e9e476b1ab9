"""`python -m corrector.preference attach SURVEY NAME/VERSION`: store a survey's results with a registered version."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from corrector.preference.analysis import analyse
from corrector.preference.attached import AttachedSurvey
from corrector.preference.judge_agreement import judge_agreement
from corrector.preference.judge_command import read_agreement, read_verdicts
from corrector.preference.survey import MIN_KAPPA, MIN_PAIRS
from corrector.preference.survey_folder import IMAGES_FOLDER, open_survey
from corrector.registry.references import Reference
from corrector.registry.surveys import attach_survey
from corrector.settings import Settings
from corrector.storage import Storage


def main_attach(
    folder: Path, database: str | None, version: str, *, tracking_uri: str | None, root: Path | None
) -> int:
    """Analyse the survey as it is now, and store the result with the version; returns 0.

    Args:
        tracking_uri: An MLflow server. None: that of the environment, or the local registry.
        root: Folder of the local registry. None: `registry` in CORRECTOR_RUNS.

    Raises:
        UserError: The survey, its database or the judge's verdicts cannot be read, the registry fails, or the survey is
            about another adapter.
    """
    reference, settings = Reference.parse(version), Settings.from_environment()
    attached = attached_survey(folder, database)
    chosen = attach_survey(
        reference,
        attached,
        folder / IMAGES_FOLDER,
        tracking_uri=tracking_uri or (None if root else settings.tracking_uri),
        root=root or Storage.of(settings.storage).disk / "registry",
    )
    print(f"{chosen}: {', '.join(f'{key} {value}' for key, value in attached.tags().items())}")
    return 0


def attached_survey(folder: Path, database: str | None) -> AttachedSurvey:
    """The survey's analysis, the judge's verdicts, and their agreement by the thresholds of the last `agree`.

    Raises:
        UserError: One of them cannot be read.
    """
    verdicts, before = read_verdicts(folder), read_agreement(folder)
    with open_survey(folder, database) as (survey, store):
        analysis = analyse(survey, store.ballots())
    return AttachedSurvey(
        survey=survey,
        analysis=analysis,
        judge=verdicts,
        agreement=judge_agreement(
            survey,
            analysis,
            verdicts,
            min_kappa=before.min_kappa if before else MIN_KAPPA,
            min_pairs=before.min_pairs if before else MIN_PAIRS,
        )
        if verdicts
        else None,
        attached=datetime.now(UTC),
    )
