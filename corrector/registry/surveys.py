"""Stores with a registered version what people and a vision-language judge prefer, and reads it again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from corrector.errors import UserError
from corrector.evaluation.scorecard_figures import Interval, share_text
from corrector.preference.attached import ATTACHED_FILE, AttachedSurvey
from corrector.prompts import GateThresholds
from corrector.registry.download import read_record
from corrector.registry.failures import RegistryError
from corrector.registry.model_folder import CARD_FILE, MODEL_FOLDER
from corrector.registry.references import Reference, Version, resolve
from corrector.registry.store import Store, open_store
from corrector.report.model_card import model_card
from corrector.report.survey_page import write_survey_page

PAGE_FILE = "survey.html"

_PREFIXES = ("survey.", "judge.")
_MAX_BYTES = 64 * 1024**2
_REMEDY = "make one, and `python -m corrector.preference attach` it"


def attach_survey(
    reference: Reference, attached: AttachedSurvey, images: Path, *, tracking_uri: str | None, root: Path
) -> Version:
    """Store a survey with the version that `reference` names: survey.json, survey.html, its model card, and tags.

    What was attached before is replaced.

    Args:
        images: Folder of the survey's images.

    Raises:
        RegistryError: There is no such version, its registration has not ended, or the registry fails.
        UserError: The survey's arm "b" is not the version's adapter.
    """
    with (
        open_store(tracking_uri, root, writing=True) as store,
        tempfile.TemporaryDirectory() as temporary,
    ):
        version = resolve(store, reference)
        if not version.complete:
            raise RegistryError(f"{version}: its registration has not ended; wait for it")
        attached.check(version.sha256)
        record, folder = read_record(store, version), Path(temporary)
        data, card = folder / ATTACHED_FILE, folder / CARD_FILE
        data.write_text(attached.model_dump_json(indent=2) + "\n", encoding="utf-8")
        card.write_text(model_card(record, version.name, attached), encoding="utf-8")
        page = write_survey_page(attached, images, folder / PAGE_FILE, title=str(version))
        for file, place in ((page, None), (card, MODEL_FOLDER), (data, None)):
            store.log_file(version.run_id, file, place)
        _replace_tags(store, version, attached.tags())
    return version


def find_survey(version: Version, *, tracking_uri: str | None, root: Path) -> AttachedSurvey | None:
    """The survey that is attached to `version`, or None.

    Raises:
        RegistryError: It cannot be read, or is about another adapter.
    """
    with open_store(tracking_uri, root, writing=False) as store:
        return read_survey(store, version)


def read_survey(store: Store, version: Version) -> AttachedSurvey | None:
    """As `find_survey`, in an open registry."""
    if ATTACHED_FILE not in store.artifacts(version.run_id):
        return None
    with tempfile.TemporaryDirectory() as temporary:
        file = store.file(version.run_id, ATTACHED_FILE, Path(temporary), limit=_MAX_BYTES)
        try:
            return AttachedSurvey.load(file, version.sha256)
        except UserError as error:
            raise RegistryError(f"{version}: {error}") from error


def survey_objections(thresholds: GateThresholds, read: Callable[[], AttachedSurvey | None]) -> list[str]:
    """Why a version must not be promoted, by what its thresholds require of people and of a judge of pairs.

    Args:
        read: Reads the attached survey; called only where one is required.
    """
    if not (thresholds.require_survey or thresholds.require_pair_judge):
        return []
    attached, least, found = read(), thresholds.min_win_rate, []
    if thresholds.require_survey:
        if attached is None:
            found.append(f"require_survey: no survey is attached; {_REMEDY}")
        else:
            found += _too_low("require_survey: people prefer it", attached.people.win_rate, least)
    if thresholds.require_pair_judge:
        judged = attached.judged if attached else None
        if attached is None or judged is None:
            found.append(f"require_pair_judge: no verdicts of a judge are attached; {_REMEDY}")
        else:
            found += _too_low("require_pair_judge: the judge prefers it", judged.win_rate, least)
            if attached.trust.status == "advisory":
                found.append(f"require_pair_judge: the judge is advisory: {attached.trust.reason}")
    return found


def _too_low(what: str, win_rate: Interval | None, least: float) -> list[str]:
    if win_rate is not None and win_rate.low >= least:
        return []
    return [f"{what} in {share_text(win_rate)} of the decided pairs; a lower bound of {least:.0%} is wanted"]


def _replace_tags(store: Store, version: Version, tags: dict[str, str]) -> None:
    for key in version.tags:
        if key.startswith(_PREFIXES) and key not in tags:
            store.models.delete_version_tag(version.name, version.number, key)
    for key, value in tags.items():
        store.models.set_version_tag(version.name, version.number, key, value)
