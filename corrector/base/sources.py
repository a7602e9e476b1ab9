"""Sources of a base's files, and their download.

A source is a small value that can be sent to any machine of a cluster. ``folder`` is a folder on that machine with the
configuration of every component; ``component(name)`` also downloads the weights of one, if they are not there yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

from corrector import s3
from corrector.base.hub import hub_files
from corrector.base.revision import belongs_to_pipeline, folder_revision
from corrector.errors import UserError
from corrector.settings import Settings

EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / "weights"

_CONFIGURATIONS = ("model_index.json", "base.json", "*/*.json", "tokenizer*/*")
_WITHOUT_WEIGHTS = ("scheduler", "tokenizer", "tokenizer_2", "tokenizer_3")
"""Components without weights."""


class PipelineSource(Protocol):
    """Files of a pipeline in the layout of ``StableDiffusion3Pipeline.save_pretrained``."""

    @property
    def revision(self) -> str:
        """The hub's commit, or a SHA-256 in hex."""

    @property
    def folder(self) -> Path:
        """The pipeline's folder on this machine with every component's configuration; raises :class:`UserError`."""

    def component(self, name: str) -> Path:
        """``folder / name`` with all files of the component; raises :class:`UserError`."""


@dataclass(frozen=True)
class EmbeddedPipeline:
    """The base inside this package."""

    @property
    def revision(self) -> str:
        """The current one; its weights are read once."""
        return folder_revision(EMBEDDED_FOLDER)

    @property
    def folder(self) -> Path:
        return EMBEDDED_FOLDER

    def component(self, name: str) -> Path:
        return EMBEDDED_FOLDER / name


@dataclass(frozen=True)
class FolderPipeline:
    """A folder on this machine or on a shared file system."""

    path: Path
    """Absolute."""

    @property
    def revision(self) -> str:
        """The current one; its weights are read once."""
        return folder_revision(self.folder)

    @property
    def folder(self) -> Path:
        if not self.path.is_dir():
            raise UserError(
                f"{self.path}: not on this machine; put the base on storage that all machines share, "
                "on the hub or in S3"
            )
        return self.path

    def component(self, name: str) -> Path:
        return self.folder / name


@dataclass(frozen=True)
class HubPipeline:
    """A repository on the Hugging Face hub at one commit; its files are in the hub's own cache."""

    repository: str
    revision: str

    @staticmethod
    def find(reference: str) -> HubPipeline:
        """The pipeline ``owner/name`` or ``owner/name@revision`` at its current commit."""
        repository, _, revision = reference.partition("@")
        folder = hub_files(repository, revision or None, _CONFIGURATIONS, what="configurations")
        return HubPipeline(repository, folder.name)

    @property
    def folder(self) -> Path:
        return hub_files(self.repository, self.revision, _CONFIGURATIONS, what="configurations")

    def component(self, name: str) -> Path:
        if name in _WITHOUT_WEIGHTS:
            return self.folder / name
        folder = hub_files(self.repository, self.revision, (f"{name}/*",), what=name) / name
        if any(folder.glob("*.safetensors")):
            return folder
        return hub_files(self.repository, self.revision, (f"{name}/*",), what=name, variants=True) / name


@dataclass(frozen=True)
class S3Pipeline:
    """A prefix in S3; its files are cached under the prefix's fingerprint."""

    url: str
    revision: str
    """Fingerprint of the names, sizes and ETags of all files."""

    @staticmethod
    def find(url: str) -> S3Pipeline:
        """The pipeline under ``url`` with its current fingerprint."""
        return S3Pipeline(url, s3.fingerprint(url, keep=belongs_to_pipeline))

    @property
    def folder(self) -> Path:
        return self._fetched("configurations", lambda key: _matches(key, _CONFIGURATIONS))

    def component(self, name: str) -> Path:
        if name in _WITHOUT_WEIGHTS:
            return self.folder / name
        return self._fetched(name, lambda key: _matches(key, (f"{name}/*",))) / name

    def _fetched(self, what: str, wanted: Callable[[str], bool]) -> Path:
        def fetch(folder: Path) -> None:
            with _unchanged(self.url, self.revision, belongs_to_pipeline):
                keys = [key for key in s3.sizes(self.url) if key == "base.json" or belongs_to_pipeline(key)]
                weights = (key for key in keys if key.endswith(".safetensors"))
                plain = {_part(key) for key in weights if not _is_half_precision(key)}
                kept = {key for key in keys if not (_is_half_precision(key) and _part(key) in plain)}
                s3.download(self.url, folder, keep=lambda key: key in kept and wanted(key))

        return _fetched_once(self.revision, what, fetch)


class CheckpointSource(Protocol):
    """A safetensors file with the transformer of a base."""

    @property
    def path(self) -> Path:
        """The file on this machine; raises :class:`UserError`."""


@dataclass(frozen=True)
class LocalCheckpoint:
    """A file on this machine or on a shared file system."""

    location: Path

    @property
    def path(self) -> Path:
        if not self.location.is_file():
            raise UserError(
                f"{self.location}: not on this machine; put the checkpoint on storage that all machines "
                "share, or in S3"
            )
        return self.location


@dataclass(frozen=True)
class S3Checkpoint:
    """An object in S3, cached under its fingerprint."""

    url: str
    fingerprint: str

    @staticmethod
    def find(url: str) -> S3Checkpoint:
        """The object at ``url`` with its current fingerprint."""
        return S3Checkpoint(url, s3.fingerprint(url))

    @property
    def path(self) -> Path:
        def fetch(folder: Path) -> None:
            with _unchanged(self.url, self.fingerprint, None):
                s3.download(self.url, folder)

        return _fetched_once(self.fingerprint, "checkpoint", fetch) / self.url.rpartition("/")[2]


def _fetched_once(content: str, what: str, fetch: Callable[[Path], None]) -> Path:
    """The cache folder of ``content``; one process fetches ``what`` into it while others wait."""
    from filelock import FileLock

    folder = Settings.from_environment().cache / "bases" / content
    done = folder / f".{what}.done"
    if done.is_file():
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{what}.lock"):
            if not done.is_file():
                fetch(folder)
                done.touch()
    except OSError as error:
        raise UserError(
            f"{folder}: cannot keep the base there ({error}); make room, or set CORRECTOR_CACHE to another folder"
        ) from error
    return folder


def _part(key: str) -> str:
    return key.partition("/")[0]


def _is_half_precision(key: str) -> bool:
    """Whether a file is of the variant fp16, which is fetched only where a component has no other."""
    return ".fp16" in key


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(key, pattern) for pattern in patterns)


@contextmanager
def _unchanged(url: str, fingerprint: str, keep: Callable[[str], bool] | None) -> Iterator[None]:
    """Raises :class:`UserError` where the objects are not those of ``fingerprint`` before or after the ``with``."""

    def check() -> None:
        if s3.fingerprint(url, keep=keep) != fingerprint:
            raise UserError(f"{url}: changed while it was in use; start again to work with what is there now")

    check()
    yield
    check()
