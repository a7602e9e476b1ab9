"""Storage: the files that all nodes of a run read and write, in a folder or on S3.

In a folder that every node sees, a file is where its name says. On S3, every node keeps a copy of the files that it uses on
its own disk, below `CORRECTOR_CACHE`: `fetch` updates the copy, and `store` uploads it. A stored folder is one object, a tar
file without compression, so that readers see all of its files or none. Storage uses HEAD, GET, PUT and DELETE of single
objects, and no listing, which may be older than the objects.
"""

from __future__ import annotations

import shutil
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from corrector import s3
from corrector.errors import UserError
from corrector.files import replace_folder, staging_folder, write_atomically
from corrector.settings import Settings


class DamagedFolderError(UserError):
    """A stored folder cannot be unpacked."""


@dataclass(frozen=True)
class Storage:
    """A folder, or a prefix on S3; equal on all nodes.

    Attributes:
        root: An absolute path, or `s3://BUCKET/PREFIX` without a slash at its end.
    """

    root: str

    @classmethod
    def of(cls, place: Storage | Path | str) -> Storage:
        """The storage at a path or an S3 URL.

        Raises:
            UserError: The URL names no bucket, or a part of it is "." or "..".
        """
        if isinstance(place, Storage):
            return place
        if isinstance(place, str) and s3.is_s3_url(place):
            url = s3.normalised(place)
            s3.local_path(Path(), url.removeprefix("s3://"), place)
            return cls(url)
        return cls(str(Path(place).expanduser().resolve()))

    @property
    def is_on_s3(self) -> bool:
        """Whether nodes share no disk."""
        return s3.is_s3_url(self.root)

    @property
    def disk(self) -> Path:
        """The storage itself, or this node's copies of it."""
        if self.is_on_s3:
            return Settings.from_environment().cache / "storage" / self.root.removeprefix("s3://")
        return Path(self.root)

    def below(self, name: str) -> Storage:
        """The storage in the folder `name`, a relative path."""
        return Storage(f"{self.root}/{name}")

    def file(self, name: str) -> StoredFile:
        return StoredFile(self, name)

    def folder(self, name: str, *, marker: str) -> StoredFolder:
        """The stored folder `name`; it is complete when it contains the file `marker`."""
        return StoredFolder(self, name, marker)


@dataclass(frozen=True)
class Stored(ABC):
    """A file or folder of a storage. All methods raise UserError where S3 refuses or does not answer."""

    storage: Storage
    name: str

    @property
    def path(self) -> Path:
        """Where this node reads and writes it."""
        return self.storage.disk / self.name

    @property
    def url(self) -> str:
        """Where it is stored, for people: a path or an S3 URL."""
        return f"{self.storage.root}/{self.name}"

    def exists(self) -> bool:
        """Whether it is stored, whole."""
        if self.storage.is_on_s3:
            return s3.etag(self.url) is not None
        return self._is_whole()

    def fetch(self) -> bool:
        """Update this node's copy; returns whether it is stored. A copy of what is not stored is removed."""
        if not self.storage.is_on_s3:
            return self._is_whole()
        etag = s3.etag(self.url)
        if etag is None:
            self.forget()
            return False
        if not (self._is_whole() and self._etag_file.exists() and self._etag_file.read_text() == etag):
            self._download()
            write_atomically(self._etag_file, etag)
        return True

    def store(self) -> None:
        """Make this node's copy the stored one; the files of a storage in a folder are stored as they are written."""
        if self.storage.is_on_s3:
            self._etag_file.unlink(missing_ok=True)
            self._upload()

    def remove(self) -> None:
        """Remove it and this node's copy; nothing happens where it is not stored."""
        if self.storage.is_on_s3:
            s3.remove(self.url)
        self._remove_copy()

    def forget(self) -> None:
        """Remove this node's copy, if the storage is on S3."""
        if self.storage.is_on_s3:
            self._remove_copy()

    @property
    def _etag_file(self) -> Path:
        """The file with the ETag of the object that the copy was downloaded from."""
        return self.path.with_name(f".{self.path.name}.etag")

    @abstractmethod
    def _is_whole(self) -> bool: ...

    @abstractmethod
    def _download(self) -> None: ...

    @abstractmethod
    def _upload(self) -> None: ...

    def _remove_copy(self) -> None:
        self._etag_file.unlink(missing_ok=True)
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)


@dataclass(frozen=True)
class StoredFile(Stored):
    """A file, which is written and replaced in one step."""

    def read(self) -> bytes | None:
        """Its content; None where it is not stored."""
        return self.path.read_bytes() if self.fetch() else None

    def write(self, content: str | bytes) -> None:
        """Store `content` in its place; raises OSError where this node's disk cannot take it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, content)
        self.store()

    def _is_whole(self) -> bool:
        return self.path.is_file()

    def _download(self) -> None:
        s3.download_object(self.url, self.path)

    def _upload(self) -> None:
        s3.upload(self.path, self.url)


@dataclass(frozen=True)
class StoredFolder(Stored):
    """A folder that is stored whole.

    Attributes:
        marker: The name of the file that is written last.
    """

    marker: str

    @property
    def url(self) -> str:
        return super().url + (".tar" if self.storage.is_on_s3 else "")

    def replace(self, folder: Path) -> None:
        """Make `folder`, on the same disk, the stored folder."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(folder, self.path)
        self.store()

    def rename(self, other: StoredFolder, *, without: Iterable[str] = ()) -> None:
        """Store this node's copy as `other`, in its place if it is stored, and remove this folder.

        Args:
            without: Names of files that `other` shall not have. In a folder they are removed last: a process that dies before
                leaves `other` with them.
        """
        unwanted = [other.path / name for name in without]
        if self.storage.is_on_s3:
            for path in unwanted:
                (self.path / path.name).unlink(missing_ok=True)
        other.replace(self.path)
        for path in unwanted:
            path.unlink(missing_ok=True)
        self.remove()

    def _is_whole(self) -> bool:
        return (self.path / self.marker).is_file()

    def _download(self) -> None:
        with staging_folder(self.path) as staging:
            packed, folder = staging / "packed.tar", staging / "folder"
            s3.download_object(self.url, packed)
            try:
                with tarfile.open(packed) as archive:
                    archive.extractall(folder, filter="data")
            except tarfile.TarError as error:
                raise DamagedFolderError(f"{self.url}: is damaged ({error}); remove it") from error
            replace_folder(folder, self.path)

    def _upload(self) -> None:
        with staging_folder(self.path) as staging:
            with tarfile.open(staging / "packed.tar", "w") as archive:
                archive.add(self.path, arcname=".")
            s3.upload(staging / "packed.tar", self.url)
