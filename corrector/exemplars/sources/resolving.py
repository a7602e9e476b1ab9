"""Resolves what a batch file names as exemplars to a folder of images on this machine."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from corrector import s3
from corrector.errors import UserError
from corrector.exemplars.exemplar_set import ExemplarSet, load_exemplars
from corrector.exemplars.files import NotAnImageError, opened, read
from corrector.exemplars.formats import promises_image
from corrector.exemplars.provenance import SourceKind
from corrector.exemplars.sources.archives import archive_entries
from corrector.exemplars.sources.downloads import download
from corrector.exemplars.sources.images import CAPTIONS, Entry, ImageFolder, is_hidden
from corrector.exemplars.sources.limits import SourceLimits, UnusableSourceError
from corrector.files import publish_folder, staging_folder
from corrector.prompts.exemplar_references import is_address, is_archive_name, is_web_url, named, shown
from corrector.settings import Settings

SPLITS = frozenset(("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval"))
"""Folders of a Hugging Face dataset folder, in it or in its folder `data`."""

_FORMAT = "1"
"""Changes when the same source would be unpacked to other files."""
_IMAGES = "images"
_NOTES = "notes.json"


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


def load_source(
    reference: str,
    folder: Path,
    *,
    resolution: int,
    seed: int = 0,
    settings: Settings | None = None,
    limits: SourceLimits | None = None,
) -> ExemplarSet:
    """The exemplars that `reference` names; see `resolve_source` and `load_exemplars`."""
    bounds = limits or SourceLimits()
    source = resolve_source(reference, folder, settings=settings, limits=bounds)
    found = load_exemplars(
        source.folder,
        resolution=resolution,
        seed=seed,
        limits=bounds.files,
        name=source.name,
        kind=source.kind,
    )
    return replace(found, notes=(*source.notes, *found.notes))


def resolve_source(
    reference: str, folder: Path, *, settings: Settings | None = None, limits: SourceLimits | None = None
) -> ResolvedSource:
    """The folder of images that `reference` names, fetched and unpacked if need be.

    A plain folder is returned as it is. An archive, a dataset folder (with `metadata.jsonl`, `metadata.csv` or split
    folders), and what lies on S3 or the web become a folder in the cache, complete or not there at all. Its key is the
    SHA-256 of the archive, or of all names and contents (on S3, ETags). Folders inside become parts of file names.

    Args:
        folder: What a relative path is relative to.
        settings: The environment's; default: read now.

    Raises:
        UserError: It may not be read, is not there, damaged, over a limit, or changed meanwhile; or the disk is full.
    """
    settings = settings or Settings.from_environment()
    bounds = limits or SourceLimits()
    cache = settings.cache / "exemplars"
    try:
        if s3.is_s3_url(reference):
            return replace(_from_s3(reference, cache, bounds), kind="s3")
        if is_web_url(reference):
            return _from_web(reference, cache, bounds, allow_private=settings.allow_private_urls)
        if is_address(reference):
            raise UnusableSourceError("is an address that is not read; give an s3:// or https:// URL")
        path = (folder / reference).absolute()
        if is_archive_name(reference) and path.is_file():
            return _from_archive(path, reference, cache, bounds)
        return _from_folder(path, reference, cache, bounds)
    except UnusableSourceError as error:
        raise UserError(f"exemplars: {named(reference)}: {error}") from None


def _from_archive(path: Path, reference: str, cache: Path, limits: SourceLimits) -> ResolvedSource:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UnusableSourceError(f"cannot be read ({error.strerror}); make it readable") from None
    with file:
        before = os.fstat(file.fileno())
        limits.require_source_bytes(before.st_size)
        key = _key("archive", hashlib.file_digest(file, "sha256").hexdigest())
        with closing(archive_entries(file, limits)) as entries:
            found = _cached(cache / key, reference) or _kept(entries, cache, reference, key=key)
        after = os.fstat(file.fileno())
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise UnusableSourceError("was changed while it was read; try again")
    return found


def _from_web(url: str, cache: Path, limits: SourceLimits, *, allow_private: bool) -> ResolvedSource:
    with _disk(cache), staging_folder(cache / "download") as staging:
        download(url, staging / "archive", limits, allow_private=allow_private)
        return _from_archive(staging / "archive", url, cache, limits)


def _from_s3(url: str, cache: Path, limits: SourceLimits) -> ResolvedSource:
    fingerprint = s3.fingerprint(url)
    archive = url.rpartition("/")[2] if is_archive_name(url) else None
    key = _key("s3", archive or "", fingerprint)
    if (found := _cached(cache / key, url)) is not None:
        return found
    sizes = s3.sizes(url)
    limits.require_entries(len(sizes))
    wanted = {name for name in sizes if promises_image(name) or name == archive}
    limits.require_source_bytes(sum(sizes[name] for name in wanted))
    with _disk(cache), staging_folder(cache / "download") as staging:
        fetched = s3.download(url, staging / "objects", keep=wanted.__contains__) if wanted else staging
        if s3.fingerprint(url) != fingerprint:
            raise UnusableSourceError("was changed while it was read; try again")
        if fetched.name == archive:
            with fetched.open("rb") as file, closing(archive_entries(file, limits)) as entries:
                return _kept(entries, cache, url, key=key)
        root = (staging / "objects").resolve()
        others = ((name, _no_image) for name in sorted(set(sizes) - wanted))
        return _kept((*_tree(root, limits), *others), cache, url, key=key)


def _from_folder(path: Path, reference: str, cache: Path, limits: SourceLimits) -> ResolvedSource:
    root = opened(path)
    if not _is_dataset(root):
        return ResolvedSource(path, reference, kind="folder")
    return replace(_kept(_tree(root, limits), cache, reference), kind="dataset")


def _is_dataset(root: Path) -> bool:
    """Whether a folder is a Hugging Face dataset folder: with captions, split folders or Parquet files."""
    with os.scandir(root) as entries:
        names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    if names.get("data"):
        with os.scandir(root / "data") as entries:
            names |= {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    return any(
        name.lower() in SPLITS if is_folder else name.lower() in CAPTIONS or name.endswith(".parquet")
        for name, is_folder in names.items()
    )


def _tree(root: Path, limits: SourceLimits) -> list[Entry]:
    """The files in `root`, a real path, and in the folders below it, by name; links to folders are not followed."""
    entries: list[Entry] = []
    size = 0
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not is_hidden((name,))]
        limits.require_entries(len(entries) + len(folders) + len(files))
        for file in files:
            name = Path(folder, file).relative_to(root).as_posix()
            size += Path(folder, file).lstat().st_size if promises_image(name) else 0
            entries.append((name, partial(read, root, name, limits.files)))
    limits.require_source_bytes(size)
    return sorted(entries, key=lambda entry: entry[0])


def _no_image() -> bytes:
    raise NotAnImageError("is not an image; remove it")


def _kept(entries: Iterable[Entry], cache: Path, reference: str, *, key: str | None = None) -> ResolvedSource:
    """The folder in the cache with the images among `entries`; without a `key`, its key is the images' digest.

    Another process may keep the same folder meanwhile; the first one's stays.
    """
    with _disk(cache), staging_folder(cache / "unpacked") as staging:
        (staging / _IMAGES).mkdir()
        images = ImageFolder(staging / _IMAGES)
        for entry in entries:
            images.add(entry)
        notes = images.finish()
        (staging / _NOTES).write_text(json.dumps(notes), encoding="utf-8")
        kept = cache / (key or _key("images", images.digest.hexdigest(), *notes))
        with suppress(FileExistsError):
            publish_folder(staging, kept)
        return ResolvedSource(kept / _IMAGES, shown(reference), notes)


def _cached(folder: Path, reference: str) -> ResolvedSource | None:
    try:
        notes = json.loads((folder / _NOTES).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return ResolvedSource(folder / _IMAGES, shown(reference), tuple(notes))


def _key(*parts: str) -> str:
    return hashlib.sha256(json.dumps([_FORMAT, *parts]).encode()).hexdigest()


@contextmanager
def _disk(cache: Path) -> Iterator[None]:
    """Explains errors of the disk that holds the cache."""
    try:
        yield
    except OSError as error:
        raise UnusableSourceError(
            f"cannot be kept in {cache} ({error.strerror or error}); make room there, or set CORRECTOR_CACHE to "
            "another folder"
        ) from None
