"""A contact sheet of a record's samples, before and after the correction."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from corrector.record.correction_record import CorrectionRecord

_COLUMNS = 8
_CELL = 256
"""Pixels: the longest side of an image on the sheet."""


def before_after_sheet(record: CorrectionRecord, folder: Path) -> Image.Image | None:
    """Rows of the base's images, each above the corrected model's row for the same seeds; None without images."""
    from corrector.exemplars import contact_sheet

    images = CorrectionRecord.images(folder)
    if not images.before:
        return None
    order: list[tuple[Path, str]] = []
    for start in range(0, len(images.before), _COLUMNS):
        rows = slice(start, start + _COLUMNS)
        for arm, files in (("before", images.before[rows]), ("after", images.after[rows])):
            order += [(file, f"{arm} {_seed(record, start + k)}") for k, file in enumerate(files)]
    pictures = []
    for file, _ in order:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
        pictures.append(picture)
    scale = max(1, _CELL // (2 * max(pictures[0].size)))
    return contact_sheet(pictures, columns=_COLUMNS, labels=[label for _, label in order], scale=scale)


def _seed(record: CorrectionRecord, index: int) -> str:
    return str(record.seeds[index]) if index < len(record.seeds) else f"#{index}"
