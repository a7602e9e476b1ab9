"""The folders of a run: the paths of its files, the state of each prompt, and the lock against a second submission.

STORAGE/
  cache/                 text embeddings and latents by content hash, shared by all runs
  registry/              the local MLflow registry, where no server is configured
  RUN/
    result.json          one object per prompt, for scripts
    report.html
    .lock, owner.json    the lock of the job that works here, and which job that is
    lanes/               what Ray Train writes
    prompts/NAME-WORK/   one prompt: checkpoint/ while it trains, sampled/ when a lane has finished it, record/ when scored
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.files import write_atomically

logger = logging.getLogger(__name__)

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class PromptFolder:
    """The folder of one prompt in one run; the same work always has the same folder.

    Attributes:
        checkpoint: The fine-tune's state while it trains.
        sampled: Adapter, loss curve and images from the lane; created atomically.
        record: The finished record, as registered.
        registration: The registry's answer; written last: where it exists, the prompt is finished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint"
        self.sampled = path / "sampled"
        self.record = path / "record"
        self.registration = path / "registration.json"

    @property
    def restored_from(self) -> str | None:
        """The registry version, NAME/NUMBER, that the record was downloaded from; None where it was trained in this run."""
        from corrector.registry.restore import RESTORED_FILE

        try:
            origin = json.loads((self.record / RESTORED_FILE).read_text())
        except FileNotFoundError:
            return None
        return f"{origin['name']}/{origin['version']}"

    @property
    def is_sampled(self) -> bool:
        """Whether a lane has trained and sampled it."""
        return self.sampled.is_dir()

    @property
    def is_recorded(self) -> bool:
        """Whether it has a complete record, of a success or of a failure."""
        return (self.record / "record.json").is_file()

    @property
    def is_finished(self) -> bool:
        """Whether it is registered."""
        return self.registration.is_file()


class RunFolder:
    """One run's folder under the storage root.

    Attributes:
        run: The run's name.
        cache: The content cache that all runs share.
        registry: The local registry's root, which all runs share.
        lanes: Ray Train's storage path.
        result: The results for scripts.
        report: The HTML report.
    """

    def __init__(self, storage: Path, run: str) -> None:
        if not _RUN_NAME.fullmatch(run):
            raise UserError(
                f"run id {run!r}: use letters, digits, '.', '_' and '-', at most 100, starting with a letter or digit"
            )
        if run in ("cache", "registry"):
            raise UserError(f"run id {run!r} is the name of a shared folder; choose another with --run-id")
        self.storage, self.run = storage.resolve(), run
        self.path = self.storage / run
        self.cache = self.storage / "cache"
        self.registry = self.storage / "registry"
        self.lanes = self.path / "lanes"
        self.result = self.path / "result.json"
        self.report = self.path / "report.html"

    def prompt(self, name: str, work_id: str) -> PromptFolder:
        """The folder of the prompt `name` whose content hash is `work_id`."""
        return PromptFolder(self.path / "prompts" / f"{name[:60]}-{work_id[:12]}")

    def create(self) -> None:
        """Make the folders; raises UserError where that is not possible."""
        try:
            for folder in (self.cache, self.registry, self.lanes):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot write there: {error.strerror}; choose another --storage"
            ) from None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folders and lock this run against other submissions until the block or this process ends.

        The lock is an flock: the kernel releases it when the process ends, and NFS shares it between nodes. On storage without
        file locks nothing is locked, and a warning is logged.

        Raises:
            UserError: Another job holds the lock; the message names it.
        """
        self.create()
        owner = self.path / "owner.json"
        descriptor = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                os.close(descriptor)
                raise UserError(
                    f"{self.path}: {_described(owner)} works in this run's folder; wait until it ends, stop it, or "
                    "choose another --run-id"
                ) from None
            logger.warning("%s: no file locks here (%s); do not submit a run twice at once", self.path, error)
        try:
            write_json(owner, _this_job())
            yield
        finally:
            owner.unlink(missing_ok=True)
            os.close(descriptor)


def _this_job() -> dict[str, Any]:
    """Identifies this process for people; `job` is Ray's submission id, where `ray job submit` started it."""
    config = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    return {
        "job": config.get("metadata", {}).get("job_submission_id"),
        "host": socket.gethostname(),
        "process": os.getpid(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _described(owner: Path) -> str:
    """A text that names the job in the file `owner`."""
    try:
        found = json.loads(owner.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return "another job"
    return f"job {found['job'] or '(local)'} (process {found['process']} on {found['host']}, since {found['since']})"


def write_json(path: Path, value: Any) -> None:
    """Write `value` as JSON, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def remove_folder(path: Path) -> None:
    """Remove a folder if it exists."""
    shutil.rmtree(path, ignore_errors=True)
