"""Where a run keeps its things, and what of them is finished.

STORAGE/
  cache/                 text embeddings and latents by content hash, shared by all runs
  registry/              the local MLflow registry, where no server is configured
  RUN/
    result.json          one object per prompt, for scripts
    report.html
    lanes/               what Ray Train writes
    prompts/NAME-WORK/   one prompt: checkpoint/ while it trains, sampled/ when a lane is done with it, record/ when scored
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corrector.errors import UserError
from corrector.registry.restore import RESTORED_FILE

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class PromptFolder:
    """The folder of one prompt in one run; the same work always has the same folder."""

    path: Path

    @property
    def checkpoint(self) -> Path:
        """The fine-tune's state while it trains."""
        return self.path / "checkpoint"

    @property
    def sampled(self) -> Path:
        """What the lane leaves behind: adapter, loss curve, images of both arms."""
        return self.path / "sampled"

    @property
    def record(self) -> Path:
        """The finished record, as registered."""
        return self.path / "record"

    @property
    def found(self) -> str | None:
        """The version, NAME/NUMBER, from which the record was taken instead of training; None: it was not."""
        try:
            origin = json.loads((self.record / RESTORED_FILE).read_text())
        except FileNotFoundError:
            return None
        return f"{origin['name']}/{origin['version']}"

    @property
    def registration(self) -> Path:
        """The registry's answer; written last, so that its presence means finished."""
        return self.path / "registration.json"

    @property
    def is_sampled(self) -> bool:
        """Whether a lane is done with it; folders are renamed into place whole."""
        return self.sampled.is_dir()

    @property
    def is_recorded(self) -> bool:
        """Whether its record is whole, be it of a success or of a failure."""
        return (self.record / "record.json").is_file()

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.registration.is_file()


class RunFolder:
    """One run's folder under the storage root."""

    def __init__(self, storage: Path, run: str) -> None:
        if not _RUN_NAME.fullmatch(run):
            raise UserError(
                f"run id {run!r}: use letters, digits, '.', '_' and '-', at most 100, starting with a letter or digit"
            )
        self.storage = storage.resolve()
        self.run = run
        self.path = self.storage / run
        if run in ("cache", "registry"):
            raise UserError(f"run id {run!r} is the name of a shared folder; choose another with --run-id")

    @property
    def cache(self) -> Path:
        """The content cache that all runs share."""
        return self.storage / "cache"

    @property
    def registry(self) -> Path:
        """The local registry's root."""
        return self.storage / "registry"

    @property
    def lanes(self) -> Path:
        """Ray Train's storage path."""
        return self.path / "lanes"

    @property
    def result(self) -> Path:
        """The machine-readable outcome."""
        return self.path / "result.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.path / "report.html"

    def prompt(self, name: str, work_id: str) -> PromptFolder:
        """The folder of the prompt `name` whose content hash is `work_id`."""
        return PromptFolder(self.path / "prompts" / f"{name[:60]}-{work_id[:12]}")

    def create(self) -> None:
        """Make the folders; a UserError says where that is not possible."""
        try:
            for folder in (self.cache, self.registry, self.lanes):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.path}: cannot write there: {error.strerror}; choose another --storage"
            ) from None


def write_json(path: Path, value: Any) -> None:
    """Write `value` whole or not at all: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def remove_folder(path: Path) -> None:
    """Remove a folder that may be gone already."""
    shutil.rmtree(path, ignore_errors=True)
