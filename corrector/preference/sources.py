"""Where a survey's images come from: the records of a run, or registered versions."""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from corrector.errors import UserError
from corrector.preference.making import ImagePair, pairs_of_record, pairs_of_versions
from corrector.preference.survey import Arm
from corrector.record.correction_record import RECORD_FILE, CorrectionRecord
from corrector.registry.references import Reference
from corrector.registry.restore import restore_images
from corrector.settings import Settings
from corrector.storage import Storage


@dataclass(frozen=True)
class SurveySource:
    """Images to compare, whose files are there for the duration of the context that gave them."""

    arms: dict[Arm, str]
    pairs: list[ImagePair]
    adapters: dict[Arm, str]


@contextmanager
def of_run(folder: Path) -> Iterator[SurveySource]:
    """Base beside correction, of the records at any depth below `folder` that have images.

    Raises:
        UserError: There is no record with images, or one cannot be read.
    """
    records = {
        path.parent: CorrectionRecord.load(path.parent)
        for path in sorted(folder.rglob(RECORD_FILE))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    corrected = {place: record for place, record in records.items() if record.status != "failed"}
    if not corrected:
        raise UserError(
            f"{folder}: no {RECORD_FILE} of a correction in it or below; expected a run, such as runs/ID"
        )
    bases = sorted({record.base_name for record in corrected.values()})
    names = ", ".join(record.name for record in corrected.values())
    digests = {record.adapter_sha256 for record in corrected.values()}
    yield SurveySource(
        {"a": f"base {', '.join(bases)}", "b": f"corrected {names}"},
        [pair for place, record in corrected.items() for pair in pairs_of_record(place, record)],
        _adapters(b=digests.pop() if len(digests) == 1 else None),
    )


@contextmanager
def of_versions(version: str, against: str | None) -> Iterator[SurveySource]:
    """A registered version beside the base, or beside the version `against`.

    Raises:
        UserError: No such version, or its images are missing.
    """
    with tempfile.TemporaryDirectory() as temporary:
        b, record, pairs = _restored(version, Path(temporary) / "b")
        if against is None:
            adapters = _adapters(b=record.adapter_sha256)
            yield SurveySource({"a": f"base {record.base_name}", "b": b}, pairs, adapters)
        else:
            a, other, others = _restored(against, Path(temporary) / "a")
            adapters = _adapters(a=other.adapter_sha256, b=record.adapter_sha256)
            yield SurveySource({"a": a, "b": b}, pairs_of_versions(others, pairs), adapters)


def survey_id(folder: Path) -> str:
    """An id for a survey in this folder: the folder's name and random digits, since a database may hold several."""
    slug = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower())[:40].strip("-")
    return f"{slug or 'survey'}-{secrets.token_hex(4)}"


def _adapters(*, a: str | None = None, b: str | None = None) -> dict[Arm, str]:
    digests: dict[Arm, str | None] = {"a": a, "b": b}
    return {arm: digest for arm, digest in digests.items() if digest is not None}


def _restored(text: str, folder: Path) -> tuple[str, CorrectionRecord, list[ImagePair]]:
    settings = Settings.from_environment()
    version, record = restore_images(
        Reference.parse(text),
        folder,
        tracking_uri=settings.tracking_uri,
        root=Storage.of(settings.storage).disk / "registry",
    )
    return str(version), record, pairs_of_record(folder, record)
