"""SourceCache: folders with the images of sources that are no plain folders, bounded in size."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from corrector.exemplars.provenance import SourceKind
from corrector.exemplars.sources.images import Entry, ImageFolder
from corrector.exemplars.sources.limits import UnusableSourceError
from corrector.files import publish_folder, remove_least_recently_used, staging_folder, write_atomically
from corrector.prompts.exemplar_references import shown

_FORMAT = "2"
"""Changes when the same source would be unpacked to other files."""
_IMAGES = "images"
_IN_USE_SECONDS = 3600.0
"""What was used within this time stays, because a process may still read it."""
_NOTES = "notes.json"
_VALIDATORS = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}
"""Headers of an answer, the best first, and the headers of the request that asks whether they still hold."""


@dataclass(frozen=True)
class ResolvedSource:
    """A folder with images.

    Attributes:
        folder: The named folder, or one in the cache.
        name: What was named, without a URL's query.
        notes: One sentence for each file that was left out on the way.
        kind: What the images were made from.
    """

    folder: Path
    name: str
    notes: tuple[str, ...] = ()
    kind: SourceKind = "archive"


@dataclass(frozen=True)
class SourceCache:
    """Folders by key, each complete or not there at all; several processes may share them.

    Attributes:
        budget: Bytes that the folders may have; beyond, what was not used for longest is removed, but nothing that was used
            within an hour.
    """

    folder: Path
    budget: int

    def get(self, key: str, reference: str) -> ResolvedSource | None:
        """The folder of `key`, or None."""
        place = self.folder / key
        try:
            notes = json.loads((place / _NOTES).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        _mark_used(place)
        return ResolvedSource(place / _IMAGES, shown(reference), tuple(notes))

    def keep(self, entries: Iterable[Entry], reference: str, *, key: str | None = None) -> ResolvedSource:
        """The new folder with the images among `entries`; without a `key`, its key is the images' digest.

        Another process may keep the same folder meanwhile; the first one's stays.
        """
        with self.explained(), staging_folder(self.folder / "unpacked") as staging:
            (staging / _IMAGES).mkdir()
            images = ImageFolder(staging / _IMAGES)
            for entry in entries:
                images.add(entry)
            notes = images.finish()
            (staging / _NOTES).write_text(json.dumps(notes), encoding="utf-8")
            kept = self.folder / (key or source_key("images", images.digest.hexdigest(), *notes))
            with suppress(FileExistsError):
                publish_folder(staging, kept)
            _mark_used(kept)
            folders = (each for each in self.folder.iterdir() if not each.name.startswith("."))
            remove_least_recently_used(folders, self.budget, spared_since=time.time() - _IN_USE_SECONDS)
            return ResolvedSource(kept / _IMAGES, shown(reference), notes)

    @contextmanager
    def download_folder(self) -> Iterator[Path]:
        """A folder for files on their way into the cache, removed at the end of the context."""
        with self.explained(), staging_folder(self.folder / "download") as staging:
            yield staging

    def fetched(self, url: str) -> tuple[ResolvedSource, Mapping[str, str]] | None:
        """What was kept of `url`, and headers of a request that ask whether it was modified since; else None."""
        for path in self.folder.glob(f"*/{_url_file(url)}"):
            with suppress(FileNotFoundError):
                conditions = json.loads(path.read_text(encoding="utf-8"))
                if found := self.get(path.parent.name, url):
                    return found, conditions
        return None

    def note_fetch(self, url: str, found: ResolvedSource, headers: Mapping[str, str]) -> None:
        """Keep what `fetched` returns for `url`, by the headers of the server's answer (names in lower case)."""
        conditions = {asked: headers[name] for name, asked in _VALIDATORS.items() if headers.get(name)}
        with suppress(OSError):  # another user's folder, a full disk: the next submission downloads again
            for path in self.folder.glob(f"*/{_url_file(url)}"):
                path.unlink(missing_ok=True)
            if conditions:
                write_atomically(found.folder.with_name(_url_file(url)), json.dumps(conditions))

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Explains errors of the disk that holds the cache."""
        try:
            yield
        except OSError as error:
            raise UnusableSourceError(
                f"cannot be kept in {self.folder} ({error.strerror or error}); make room there, or set CORRECTOR_CACHE "
                "to another folder"
            ) from None


def source_key(*parts: str) -> str:
    """The key of a folder in the cache, by all that determines its files."""
    return hashlib.sha256(json.dumps([_FORMAT, *parts]).encode()).hexdigest()


def _url_file(url: str) -> str:
    """Name of the file beside the images of `url`; it does not show the URL, whose query may be a credential."""
    return f"{source_key('url', url)}.json"


def _mark_used(folder: Path) -> None:
    with suppress(OSError):  # another user's
        os.utime(folder)
