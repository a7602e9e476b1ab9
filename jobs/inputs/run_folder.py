"""The files of a run in its storage, and the state of each prompt.

STORAGE/
  cache/                 text embeddings and latents by content hash, shared by all runs; images/ has the base's images
  registry/              the local MLflow registry, where no server is configured
  RUN/
    result.json          one object per prompt, for scripts
    report.html
    .lock, owner.json    the lock of the job that works here (`jobs.inputs.run_lock`), and which job that is
    lanes/, tune/        what Ray Train and Ray Tune write
    prompts/NAME-WORK/   one prompt: checkpoint/ while it trains, sampled/ when a lane has finished it, record/ when scored

On S3, checkpoint, sampled and record are tar files (`corrector.storage`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.storage import Storage, StoredFile

SAMPLED_FILE = "sampled.json"
"""Of `sampled/`: the loss curve, the seconds and the hard negatives; written last."""

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class PromptFolder:
    """The files of one prompt in one run; the same work always has the same place.

    Attributes:
        checkpoint: The fine-tune's state while it trains.
        sampled: Adapter, loss curve and images from the lane.
        record: The finished record, as registered.
        registration: The registry's answer; written last: where it exists, the prompt is finished.
    """

    def __init__(self, place: Storage | Path) -> None:
        self.place = Storage.of(place)
        self.checkpoint = self.place.folder("checkpoint", marker="engine.json")
        self.sampled = self.place.folder("sampled", marker=SAMPLED_FILE)
        self.record = self.place.folder("record", marker="record.json")
        self.registration = self.place.file("registration.json")

    def restored_from(self) -> str | None:
        """The registry version, NAME/NUMBER, that this node's copy of the record was downloaded from; None where it was
        trained in this run."""
        from corrector.registry.restore import RESTORED_FILE

        try:
            origin = json.loads((self.record.path / RESTORED_FILE).read_text())
        except FileNotFoundError:
            return None
        return f"{origin['name']}/{origin['version']}"


class RunFolder:
    """The files of one run.

    Attributes:
        run: The run's name.
        cache: Where the content cache lies that all runs share.
        registry: The local registry's root, which all runs share.
        lanes: Ray Train's storage path.
        result: The results for scripts.
        report: The HTML report.
    """

    def __init__(self, storage: Storage | Path | str, run: str) -> None:
        if not _RUN_NAME.fullmatch(run):
            raise UserError(
                f"run id {run!r}: use letters, digits, '.', '_' and '-', at most 100, starting with a letter or digit"
            )
        if run in ("cache", "registry"):
            raise UserError(f"run id {run!r} is the name of a shared folder; choose another with --run-id")
        self.storage, self.run = Storage.of(storage), run
        self.place = self.storage.below(run)
        self.cache = self.storage.below("cache")
        self.registry = self.storage.disk / "registry"
        self.lanes = self.place.below("lanes").root
        self.result = self.place.file("result.json")
        self.report = self.place.file("report.html")

    def prompt(self, name: str, work_id: str) -> PromptFolder:
        """The files of the prompt `name` whose content hash is `work_id`."""
        return PromptFolder(self.place.below(f"prompts/{name[:60]}-{work_id[:12]}"))

    def create(self) -> None:
        """Make the folders on this node; raises UserError where that is not possible."""
        folders = [self.place.disk, self.cache.disk]
        if not self.storage.is_on_s3:
            folders += [self.registry, Path(self.lanes)]
        try:
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            other = "CORRECTOR_CACHE" if self.storage.is_on_s3 else "--storage"
            raise UserError(
                f"{self.place.disk}: cannot write there: {error.strerror}; choose another {other}"
            ) from None


def write_json(file: StoredFile, value: Any) -> None:
    """Store `value` as JSON."""
    file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(file: StoredFile) -> Any:
    """The value that was stored; None where the file is missing."""
    content = file.read()
    return None if content is None else json.loads(content)
