"""What MLflow keeps of one record: a run with parameters, metrics and tags, and its files as artifacts.

record.json  scorecard.json  entry.json  before_after.png  review.html  images.zip (see `corrector.record.archive`)  model/ (see `model_folder`)
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
from urllib.parse import unquote, urlsplit

from corrector.record.archive import ARCHIVE_FILE, pack_images
from corrector.record.correction import IMAGES_FOLDER, RECORD_FILE, CorrectionRecord
from corrector.registry.model_folder import MODEL_FOLDER, write_model
from corrector.registry.store import RegistryError, Store
from corrector.registry.tags import SHA256, STATUS, WORK_ID, cut, describe, record_tags, safe_key
from corrector.report.sheet import before_after_sheet

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

EXPERIMENT = "corrections"
BEGAN = "registration_began"
"""When a run was made; its start and end times are those of the work."""
REVIEW_PAGE = "review.html"
"""The gallery for reviewers, where a record's folder has one."""
SHEET_FILE = "before_after.png"
SCORECARD_FILE = "scorecard.json"
ENTRY_FILE = "entry.json"

_METRICS_PER_BATCH = 1000
_PARAMETERS_PER_BATCH = 100
_NAME_LENGTH = 250
_UPLOADS = 4


def log_run(store: Store, record: CorrectionRecord, folder: Path) -> tuple[str, bool]:
    """The identity of a finished run of `record`, and whether this process wrote it.

    A run has one writer at a time: one that has ended is used as it is, and one that an interrupted attempt left is completed
    only where nobody else can be at work on it, in the local form; with a server, it is left to `collect`. A failed prompt's
    run ends as FAILED, any other as FINISHED.
    """
    experiment = _experiment(store)
    run = _find_run(store, experiment, record)
    if run is not None and run.info.status != "RUNNING":
        return str(run.info.run_id), False
    if run is None or not store.is_exclusive:
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
    """Delete a run: first its artifacts, so that one that is interrupted is found again."""
    delete_artifacts(store, run_id)
    store.client.delete_run(run_id)


def delete_artifacts(store: Store, run_id: str) -> None:
    """Delete all artifacts of a run."""
    if store.artifacts is not None:
        # MLflow decodes the folder's name twice here, and finds none where it holds a percent sign.
        address = store.client.get_run(run_id).info.artifact_uri
        folder = Path(unquote(urlsplit(address).path))
        if folder.parent.name != run_id:
            raise RegistryError(f"run {run_id}: its artifacts are said to lie in {folder}; not deleted")
        shutil.rmtree(folder, ignore_errors=True)
    elif has_artifacts(store, run_id):
        store.repository(run_id).delete_artifacts()


def has_artifacts(store: Store, run_id: str) -> bool:
    """Whether a run, which may have been deleted, has any artifacts."""
    return bool(store.repository(run_id).list_artifacts())


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
            store.client.log_artifact(run_id, str(staged / file), None if parent == "." else parent)

        log(files[0])  # alone: MLflow then knows where the run's artifacts lie, and does not ask again
        with ThreadPoolExecutor(_UPLOADS, thread_name_prefix="upload") as pool:
            running = [pool.submit(log, file) for file in files[1:]]
            try:
                for logged in running:
                    logged.result()
            except BaseException:
                # The others would wait for the same fault in turn.
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _stage_files(record: CorrectionRecord, folder: Path, staged: Path) -> None:
    """Everything that a run keeps of the record in `folder`, as files below `staged`."""
    for file in (RECORD_FILE, REVIEW_PAGE):
        if (folder / file).is_file():
            shutil.copyfile(folder / file, staged / file)
    if (folder / IMAGES_FOLDER).is_dir():
        pack_images(folder, staged / ARCHIVE_FILE)
    entry = json.dumps(record.entry, indent=2, ensure_ascii=False) + "\n"
    (staged / ENTRY_FILE).write_text(entry, encoding="utf-8")
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
