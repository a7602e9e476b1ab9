"""Two versions side by side: what their records say, figure by figure, and their images on one page."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from corrector.record.correction import CorrectionRecord
from corrector.registry.download import read_record
from corrector.registry.failures import RegistryError
from corrector.registry.references import Reference, Version, resolve
from corrector.registry.runs import SHEET_FILE
from corrector.registry.store import Store, open_store

MAX_SHEET_BYTES = 64 * 1024**2


@dataclass(frozen=True)
class Row:
    """One figure or fact of both versions, as text."""

    what: str
    one: str
    other: str

    @property
    def differs(self) -> bool:
        """Whether the versions differ in it."""
        return self.one != self.other


@dataclass(frozen=True)
class Comparison:
    """Two versions, what is said of both, and their before-and-after sheets (PNG bytes) where they have them."""

    one: Version
    other: Version
    rows: tuple[Row, ...]
    sheets: tuple[bytes | None, bytes | None]


def compare(one: Reference, other: Reference, *, tracking_uri: str | None, root: Path) -> Comparison:
    """Read both versions' records and sheets.

    Raises:
        RegistryError: One of them does not exist or is damaged, or the registry fails.
    """
    with open_store(tracking_uri, root, writing=False) as store:
        pair = resolve(store, one), resolve(store, other)
        records = [read_record(store, version) for version in pair]
        facts = [
            _review(version, record) | figures(record) | _origin(version, record)
            for version, record in zip(pair, records, strict=True)
        ]
        rows = tuple(
            Row(what, facts[0].get(what, ""), facts[1].get(what, ""))
            for what in dict.fromkeys([*facts[0], *facts[1]])
        )
        return Comparison(*pair, rows, (_sheet(store, pair[0]), _sheet(store, pair[1])))


def write_comparison(comparison: Comparison, path: Path) -> Path:
    """Write the comparison as one HTML file without scripts or references to anything outside; returns `path`.

    Whatever comes from records and tags is escaped.

    Raises:
        RegistryError: `path` cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    template = (files("corrector.registry") / "comparison.html.jinja").read_text(encoding="utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    html = page.from_string(template).render(
        comparison=comparison,
        sheets=[base64.b64encode(sheet).decode() if sheet else None for sheet in comparison.sheets],
    )
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(html, encoding="utf-8")
        return partial.replace(path)
    except OSError as error:
        raise RegistryError(f"{path}: cannot be written: {error.strerror}; choose another file") from error


def figures(record: CorrectionRecord) -> dict[str, str]:
    """The scorecard's figures, each with its base and, where it has one, its n and interval."""
    card = record.scorecard
    if card is None:
        return {}
    found = {"gate": "passed" if card.verdict.passed else "not passed"}
    found |= {
        f"check: {check.name}": "passed" if check.passed else "not passed" for check in card.verdict.reasons
    }
    for distance in card.distances:
        found[distance.metric] = (
            f"{distance.fid_base:.4g} → {distance.fid_corrected:.4g} (n = {distance.n} against {distance.n_reference})"
        )
        found[f"{distance.metric}, difference"] = str(distance.fid_difference)
        found[f"kid_{distance.extractor}"] = f"{distance.kid_base:.4g} → {distance.kid_corrected:.4g}"
        found[f"relative MMD p, {distance.extractor}"] = f"{distance.relative_mmd_p:.4g}"
    for score in card.similarity:
        where = f"{score.against}, {score.pairing}"
        found[f"SSIM, {where}"] = f"{score.ssim_base:.3f} → {score.ssim_corrected:.3f} (n = {score.n})"
        found[f"PSNR dB, {where}"] = f"{score.psnr_base:.2f} → {score.psnr_corrected:.2f}"
    for diversity in card.diversity:
        found[f"diversity ratio, {diversity.measure}"] = f"{diversity.ratio:.3g} (n = {diversity.n})"
    for nearest in card.nearest_training:
        found[f"near training exemplars, {nearest.extractor}"] = f"{nearest.near_corrected:.0%}"
    for guard in card.guards:
        found[f"guard kept: {guard.prompt}"] = (
            f"{guard.kept_base:.0%} → {guard.kept_corrected:.0%} (n = {guard.n})"
        )
    if card.false_route is not None:
        harm = card.false_route
        found["false route kept"] = f"{harm.kept_base:.0%} → {harm.kept_corrected:.0%} (n = {harm.n})"
        found["false route, drop"] = str(harm.drop)
    return found


def _review(version: Version, record: CorrectionRecord) -> dict[str, str]:
    return {
        "prompt": record.prompt,
        "aliases": ", ".join(version.aliases) or "none",
        "decision": version.decision or "none",
    }


def _origin(version: Version, record: CorrectionRecord) -> dict[str, str]:
    chosen: Mapping[str, Any] = record.entry.get("hyperparameters") or {}
    return {
        "registered": f"{version.created:%Y-%m-%d %H:%M} UTC",
        "base": f"{record.base_reference} at {record.base_revision[:12]}",
        **{str(name): str(value) for name, value in chosen.items()},
        "SHA-256": version.sha256[:16],
    }


def _sheet(store: Store, version: Version) -> bytes | None:
    with tempfile.TemporaryDirectory() as temporary:
        try:
            return store.file(version.run_id, SHEET_FILE, Path(temporary), limit=MAX_SHEET_BYTES).read_bytes()
        except RegistryError:
            return None
