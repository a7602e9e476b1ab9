"""The MLflow run of one record: parameters, metrics, tags, and these artifacts:

record.json, scorecard.json, entry.json, exemplars.json, before_after.png, review.html, images.zip
(`corrector.record.archive`) and model/ (`model_folder`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corrector.record.archive import ARCHIVE_FILE, pack_images
from corrector.record.correction_record import IMAGES_FOLDER, RECORD_FILE, CorrectionRecord
from corrector.registry.model_folder import MODEL_FOLDER, write_model
from corrector.registry.store import Store
from corrector.registry.tags import SHA256, STATUS, WORK_ID, cut, describe, record_tags, safe_key
from corrector.report.sheet import before_after_sheet

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

EXPERIMENT = "corrections"
BEGAN = "registration_began"
"""Tag of a run: when it was made. Its start and end times are those of the training."""
REVIEW_PAGE = "review.html"
"""The page for reviewers, where a record's folder has one."""
SHEET_FILE = "before_after.png"
SCORECARD_FILE = "scorecard.json"
ENTRY_FILE = "entry.json"
EXEMPLARS_FILE = "exemplars.json"
"""Sources and decisions of the exemplars, where the record has them."""

_METRICS_PER_BATCH = 1000
_PARAMETERS_PER_BATCH = 100
_NAME_LENGTH = 250
_UPLOADS = 4


def log_run(store: Store, record: CorrectionRecord, folder: Path) -> tuple[str, bool]:
    """Make sure that a finished run of `record` exists; return its id and whether this process wrote it.

    A run has one writer. A run that has ended is not changed. A run that an interrupted process left is completed in a
    local registry, whose lock excludes other writers; on a server `garbage` removes it. The run of a failed prompt ends as
    FAILED, any other as FINISHED.
    """
    experiment = store.experiment(EXPERIMENT)
    run = _find_run(store, experiment, record)
    if run is not None and run.info.status != "RUNNING":
        return str(run.info.run_id), False
    if run is None or store.root is None:
        run = store.client.create_run(
            experiment,
            start_time=_milliseconds(record) - round(1000 * sum(record.seconds.values())),
            tags=record_tags(record)
            | {"mlflow.note.content": describe(record), BEGAN: datetime.now(UTC).isoformat()},
            run_name=record.name[:_NAME_LENGTH],
        )
    run_id = str(run.info.run_id)
    for chunk in _chunks(_parameters(record), _PARAMETERS_PER_BATCH):
        store.client.log_batch(run_id, params=chunk)
    for chunk in _chunks(_metrics(record), _METRICS_PER_BATCH):
        store.client.log_batch(run_id, metrics=chunk)
    _log_files(store, run_id, record, folder)
    status = "FAILED" if record.status == "failed" else "FINISHED"
    store.client.set_terminated(run_id, status=status, end_time=_milliseconds(record))
    return run_id, True


def delete_run(store: Store, run_id: str) -> None:
    """Delete a run after its artifacts, so that `garbage` finds an interrupted deletion again."""
    store.delete_artifacts(run_id)
    store.client.delete_run(run_id)


def _find_run(store: Store, experiment: str, record: CorrectionRecord) -> Run | None:
    same = {WORK_ID: record.work_id, STATUS: record.status}
    if record.status == "failed":
        same["recorded"] = record.created.isoformat()
    else:
        same[SHA256] = record.adapter_sha256 or ""
    condition = " and ".join(f"tags.{key} = '{value}'" for key, value in same.items())
    found = store.client.search_runs([experiment], condition, order_by=["attributes.start_time"])
    return min(found, key=lambda run: run.info.status == "RUNNING", default=None)


def _parameters(record: CorrectionRecord) -> list[Any]:
    from mlflow.entities import Param

    chosen = {"prompt": record.prompt, "base": record.base_reference}
    chosen |= record.entry.get("hyperparameters") or {}
    return [Param(safe_key(name), cut(str(value))) for name, value in chosen.items()]


def _metrics(record: CorrectionRecord) -> list[Metric]:
    from mlflow.entities import Metric

    at = _milliseconds(record)
    found = [
        Metric(name, value, at, point.step)
        for point in record.curve
        for name, value in point.model_dump(exclude={"step"}).items()
        if value is not None
    ]
    found += [Metric(f"seconds.{safe_key(stage)}", value, at, 0) for stage, value in record.seconds.items()]
    scores = record.scorecard.metrics if record.scorecard else {}
    found += [Metric(safe_key(name), value, at, 0) for name, value in scores.items()]
    return found


def _log_files(store: Store, run_id: str, record: CorrectionRecord, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        staged = Path(temporary)
        _stage_files(record, folder, staged)
        files = sorted(path.relative_to(staged) for path in staged.rglob("*") if path.is_file())

        def log(file: Path) -> None:
            parent = file.parent.as_posix()
            store.log_file(run_id, staged / file, None if parent == "." else parent)

        log(files[0])  # first, so that MLflow requests the artifacts' address once
        with ThreadPoolExecutor(_UPLOADS, thread_name_prefix="upload") as pool:
            for _ in pool.map(log, files[1:]):  # after a failure, `map` cancels uploads that have not begun
                pass


def _stage_files(record: CorrectionRecord, folder: Path, staged: Path) -> None:
    for file in (RECORD_FILE, REVIEW_PAGE):
        if (folder / file).is_file():
            shutil.copyfile(folder / file, staged / file)
    if (folder / IMAGES_FOLDER).is_dir():
        pack_images(folder, staged / ARCHIVE_FILE)
    entry = json.dumps(record.entry, indent=2, ensure_ascii=False) + "\n"
    (staged / ENTRY_FILE).write_text(entry, encoding="utf-8")
    if record.exemplars:
        exemplars = record.model_dump(mode="json", include={"exemplars"})
        text = json.dumps(exemplars, indent=2, ensure_ascii=False) + "\n"
        (staged / EXEMPLARS_FILE).write_text(text, encoding="utf-8")
    if record.scorecard is not None:
        card = record.scorecard.model_dump_json(indent=2) + "\n"
        (staged / SCORECARD_FILE).write_text(card, encoding="utf-8")
    sheet = before_after_sheet(record, folder)
    if sheet is not None:
        sheet.save(staged / SHEET_FILE)
    if record.adapter_sha256 is not None:
        write_model(record, folder, staged / MODEL_FOLDER)


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _milliseconds(record: CorrectionRecord) -> int:
    return round(record.created.timestamp() * 1000)
