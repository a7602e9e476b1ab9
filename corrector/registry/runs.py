"""What MLflow keeps of one record: a run with parameters, metrics and tags, and the folder as artifacts."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from corrector.evaluation.scorecard import Scorecard
from corrector.registry.record import ADAPTER_FOLDER, IMAGES_FOLDER, RECORD_FILE, CorrectionRecord
from corrector.registry.store import Store

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

EXPERIMENT = "corrections"
_METRICS_PER_BATCH = 1000
_PARAMETERS_PER_BATCH = 100
_TAG_LENGTH = 5000
_NAME_LENGTH = 250
_SHEET_COLUMNS = 8
_SHEET_CELL = 256


def log_run(store: Store, record: CorrectionRecord, folder: Path) -> Run:
    """The finished run of `record`, made, or completed where an earlier attempt stopped half-way.

    A failed prompt's run ends as FAILED, any other as FINISHED; a run that has ended is not written again.
    """
    experiment = _experiment(store)
    run = _find_run(store, experiment, record)
    if run is None:
        run = store.client.create_run(
            experiment,
            start_time=_milliseconds(record) - round(1000 * sum(record.seconds.values())),
            tags=run_tags(record),
            run_name=record.name[:_NAME_LENGTH],
        )
    if run.info.status == "RUNNING":
        run_id = run.info.run_id
        parameters = _parameters(record)
        for chunk in _chunks(parameters, _PARAMETERS_PER_BATCH):
            store.client.log_batch(run_id, params=chunk)
        for chunk in _chunks(_metrics(record), _METRICS_PER_BATCH):
            store.client.log_batch(run_id, metrics=chunk)
        _log_files(store, run_id, record, folder)
        status = "FAILED" if record.status == "failed" else "FINISHED"
        store.client.set_terminated(run_id, status=status, end_time=_milliseconds(record))
    return run


def run_tags(record: CorrectionRecord) -> dict[str, str]:
    """What people and programs filter on, the same on a run and its version; record.json holds it uncut."""
    tags = {
        "work_id": record.work_id,
        "recorded": record.created.isoformat(),
        "status": record.status,
        "prompt": record.prompt,
        "base": record.base_reference,
        "base_name": record.base_name,
        "base_revision": record.base_revision,
        "adapter_sha256": record.adapter_sha256 or "",
        "error": record.error or "",
        "mlflow.note.content": describe(record),
    }
    for name, value in record.lineage.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        tags[f"lineage.{_key(name)}"] = text
    return {name: value[:_TAG_LENGTH] for name, value in tags.items() if value}


def describe(record: CorrectionRecord) -> str:
    """The verdict in Markdown, as MLflow's pages show it; whatever came from users is escaped."""
    lines = [f"**{record.status}**: {_escape(record.prompt)}", ""]
    if record.error:
        lines += [_escape(record.error), ""]
    checks = record.scorecard.verdict.reasons if record.scorecard else ()
    for check in sorted(checks, key=lambda check: check.passed):
        verdict = "passed" if check.passed else "**not passed**"
        lines.append(f"- {verdict}: {_escape(check.name)}: {_escape(check.detail)}")
    return "\n".join(lines).strip()[:_TAG_LENGTH]


def _experiment(store: Store) -> str:
    from mlflow.exceptions import MlflowException

    found = store.client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(store.client.create_experiment(EXPERIMENT, artifact_location=store.artifacts))
        except MlflowException:
            found = store.client.get_experiment_by_name(EXPERIMENT)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        store.client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _find_run(store: Store, experiment: str, record: CorrectionRecord) -> Run | None:
    same = {"work_id": record.work_id, "status": record.status}
    if record.status == "failed":
        same["recorded"] = record.created.isoformat()
    else:
        same["adapter_sha256"] = record.adapter_sha256 or ""
    condition = " and ".join(f"tags.{key} = '{value}'" for key, value in same.items())
    found = store.client.search_runs(
        [experiment], condition, order_by=["attributes.start_time"], max_results=1
    )
    return found[0] if found else None


def _parameters(record: CorrectionRecord) -> list[Any]:
    from mlflow.entities import Param

    chosen = {"prompt": record.prompt, "base": record.base_reference}
    chosen |= record.entry.get("hyperparameters") or {}
    return [Param(_key(name), str(value)) for name, value in chosen.items()]


def _metrics(record: CorrectionRecord) -> list[Metric]:
    from mlflow.entities import Metric

    at = _milliseconds(record)
    found = [
        Metric(name, value, at, point.step)
        for point in record.curve
        for name, value in point.model_dump(exclude={"step"}).items()
        if value is not None
    ]
    found += [Metric(f"seconds.{_key(stage)}", value, at, 0) for stage, value in record.seconds.items()]
    found += [Metric(_key(name), value, at, 0) for name, value in _scores(record.scorecard).items()]
    return found


def _scores(card: Scorecard | None) -> dict[str, float]:
    """The scorecard's figures by which runs are compared, each named after its extractor or measure."""
    if card is None:
        return {}
    found = {"gate_passed": float(card.verdict.passed), "images": float(card.n)}
    for distance in card.distances:
        difference = distance.fid_difference
        found[f"{distance.metric}_base"] = distance.fid_base
        found[f"{distance.metric}_corrected"] = distance.fid_corrected
        found[f"{distance.metric}_difference"] = difference.value
        found[f"{distance.metric}_difference_low"] = difference.low
        found[f"{distance.metric}_difference_high"] = difference.high
        found[f"kid_{distance.extractor}_base"] = distance.kid_base
        found[f"kid_{distance.extractor}_corrected"] = distance.kid_corrected
        found[f"relative_mmd_p_{distance.extractor}"] = distance.relative_mmd_p
    for similarity in card.similarity:
        where = f"{similarity.against}_{similarity.pairing}".replace(" ", "_").replace("-", "_")
        found[f"ssim_{where}_base"] = similarity.ssim_base
        found[f"ssim_{where}_corrected"] = similarity.ssim_corrected
        found[f"psnr_{where}_base"] = similarity.psnr_base
        found[f"psnr_{where}_corrected"] = similarity.psnr_corrected
    for diversity in card.diversity:
        found[f"diversity_ratio_{diversity.measure}".replace(" ", "_")] = diversity.ratio
    for nearest in card.nearest_training:
        found[f"near_training_{nearest.extractor}"] = nearest.near_corrected
    if card.guards:
        found["guard_drop_worst"] = max(guard.drop for guard in card.guards)
    if card.safety is not None:
        found["unsafe_images"] = float(card.safety.unsafe_corrected)
    return found


def _log_files(store: Store, run_id: str, record: CorrectionRecord, folder: Path) -> None:
    for part in (ADAPTER_FOLDER, IMAGES_FOLDER):
        if (folder / part).is_dir():
            store.client.log_artifacts(run_id, str(folder / part), part)
    store.client.log_artifact(run_id, str(folder / RECORD_FILE))
    with tempfile.TemporaryDirectory() as temporary:
        extra = Path(temporary)
        if record.scorecard is not None:
            (extra / "scorecard.json").write_text(
                record.scorecard.model_dump_json(indent=2) + "\n", encoding="utf-8"
            )
        sheet = _before_after_sheet(record, folder)
        if sheet is not None:
            sheet.save(extra / "before_after.png")
        store.client.log_artifacts(run_id, str(extra))


def _before_after_sheet(record: CorrectionRecord, folder: Path) -> Image.Image | None:
    """Rows of the base's images, each above the corrected model's row for the same seeds."""
    from corrector.exemplars import contact_sheet

    images = CorrectionRecord.images(folder)
    if not images.before:
        return None
    order: list[tuple[Path, str]] = []
    for start in range(0, len(images.before), _SHEET_COLUMNS):
        rows = slice(start, start + _SHEET_COLUMNS)
        for arm, files in (("before", images.before[rows]), ("after", images.after[rows])):
            order += [(file, f"{arm} {_seed(record, start + k)}") for k, file in enumerate(files)]
    pictures = []
    for file, _ in order:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((_SHEET_CELL, _SHEET_CELL), Image.Resampling.LANCZOS)
        pictures.append(picture)
    scale = max(1, _SHEET_CELL // (2 * max(pictures[0].size)))
    return contact_sheet(pictures, columns=_SHEET_COLUMNS, labels=[label for _, label in order], scale=scale)


def _seed(record: CorrectionRecord, index: int) -> str:
    return str(record.seeds[index]) if index < len(record.seeds) else f"#{index}"


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _milliseconds(record: CorrectionRecord) -> int:
    return round(record.created.timestamp() * 1000)


def _key(name: Any) -> str:
    """A name that MLflow takes as the key of a parameter, metric or tag."""
    return re.sub(r"[^\w\- ]", "_", str(name), flags=re.ASCII).strip() or "_"


def _escape(text: str) -> str:
    """Text of users inside Markdown, on one line."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|&~])", r"\\\1", " ".join(text.split()))
