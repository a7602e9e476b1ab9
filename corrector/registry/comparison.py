"""Fetches the records and sheets of two registered versions; `corrector.report.comparison` writes the page."""

from __future__ import annotations

import tempfile
from pathlib import Path

from corrector.registry.download import read_record
from corrector.registry.failures import RegistryError
from corrector.registry.mlflow_run import SHEET_FILE
from corrector.registry.references import Reference, Version, resolve
from corrector.registry.store import Store, open_store
from corrector.registry.surveys import read_survey
from corrector.report.comparison import ComparedVersion
from corrector.report.survey_texts import survey_texts

MAX_SHEET_BYTES = 64 * 1024**2


def fetch_compared(
    references: tuple[Reference, Reference], *, tracking_uri: str | None, root: Path
) -> tuple[ComparedVersion, ComparedVersion]:
    """Both versions with their records and before-and-after sheets.

    Raises:
        RegistryError: One of them does not exist or is damaged, or the registry fails.
    """
    with open_store(tracking_uri, root, writing=False) as store:
        one, other = (resolve(store, reference) for reference in references)
        return _compared(store, one), _compared(store, other)


def _compared(store: Store, version: Version) -> ComparedVersion:
    facts = {
        "aliases": ", ".join(version.aliases) or "none",
        "decision": version.decision or "none",
        "registered": f"{version.created:%Y-%m-%d %H:%M} UTC",
        "SHA-256": version.sha256[:16],
    }
    survey = read_survey(store, version)
    facts |= dict(survey_texts(survey)) if survey else {}
    return ComparedVersion(str(version), read_record(store, version), facts, _sheet(store, version))


def _sheet(store: Store, version: Version) -> bytes | None:
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return store.file(version.run_id, SHEET_FILE, Path(temporary), limit=MAX_SHEET_BYTES).read_bytes()
        except RegistryError:
            return None
