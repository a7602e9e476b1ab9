"""Resolves what a batch file names as exemplars to a folder of images on this machine."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from corrector import s3
from corrector.errors import UserError
from corrector.exemplars.exemplar_set import ExemplarSet, load_exemplars
from corrector.exemplars.files import NotAnImageError, opened, read
from corrector.exemplars.formats import promises_image
from corrector.exemplars.sources.archives import archive_entries
from corrector.exemplars.sources.cache import ResolvedSource, SourceCache, source_key
from corrector.exemplars.sources.downloads import NOT_MODIFIED, download
from corrector.exemplars.sources.images import CAPTIONS, Entry, is_hidden
from corrector.exemplars.sources.limits import SourceLimits, UnusableSourceError
from corrector.prompts.exemplar_references import is_address, is_archive_name, is_web_url, named
from corrector.prompts.failing_prompt import ExemplarFit
from corrector.settings import Settings

SPLITS = frozenset(("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval"))
"""Folders of a Hugging Face dataset folder, in it or in its folder `data`."""


def load_source(
    reference: str,
    folder: Path,
    *,
    resolution: int,
    seed: int = 0,
    fit: ExemplarFit = "crop",
    settings: Settings | None = None,
    limits: SourceLimits | None = None,
) -> ExemplarSet:
    """The exemplars that `reference` names; see `resolve_source` and `load_exemplars`."""
    settings = settings or Settings.from_environment()
    bounds = _with_roots(limits or SourceLimits(), folder, settings)
    source = resolve_source(reference, folder, settings=settings, limits=bounds)
    found = load_exemplars(
        source.folder,
        resolution=resolution,
        seed=seed,
        fit=fit,
        limits=bounds.files,
        name=source.name,
        kind=source.kind,
    )
    return replace(found, notes=(*source.notes, *found.notes))


def resolve_source(
    reference: str, folder: Path, *, settings: Settings | None = None, limits: SourceLimits | None = None
) -> ResolvedSource:
    """The folder of images that `reference` names, fetched and unpacked if need be.

    A plain folder is returned as it is. Symbolic links in folders may lead into `folder` and the environment's exemplar
    roots. An archive, a dataset folder (with `metadata.jsonl`, `metadata.csv` or split folders), and what lies on S3 or the
    web become a folder in the cache, complete or not there at all. Its key is the SHA-256 of the archive, or of all names
    and contents (on S3, ETags). Folders inside become parts of file names. An archive on the web is downloaded again unless
    its server answers, by ETag or time of modification, that it is the one in the cache.

    Args:
        folder: What a relative path is relative to.
        settings: The environment's; default: read now.

    Raises:
        UserError: It may not be read, is not there, damaged, over a limit, or changed meanwhile; or the disk is full.
    """
    settings = settings or Settings.from_environment()
    bounds = _with_roots(limits or SourceLimits(), folder, settings)
    cache = SourceCache(settings.cache / "exemplars", settings.exemplar_cache_bytes)
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


def _with_roots(limits: SourceLimits, folder: Path, settings: Settings) -> SourceLimits:
    """`limits` under which symbolic links may lead where a batch file in `folder` may name folders."""
    return replace(limits, files=replace(limits.files, roots=(folder, *settings.exemplar_roots)))


def _from_archive(path: Path, reference: str, cache: SourceCache, limits: SourceLimits) -> ResolvedSource:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UnusableSourceError(f"cannot be read ({error.strerror}); make it readable") from None
    with file:
        before = os.fstat(file.fileno())
        limits.require_source_bytes(before.st_size)
        key = source_key("archive", hashlib.file_digest(file, "sha256").hexdigest())
        with closing(archive_entries(file, limits)) as entries:
            found = cache.get(key, reference) or cache.keep(entries, reference, key=key)
        after = os.fstat(file.fileno())
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        raise UnusableSourceError("was changed while it was read; try again")
    return found


def _from_web(url: str, cache: SourceCache, limits: SourceLimits, *, allow_private: bool) -> ResolvedSource:
    known, conditions = cache.fetched(url) or (None, None)
    with cache.download_folder() as staging:
        path = staging / "archive"
        answer = download(url, path, limits, allow_private=allow_private, conditions=conditions)
        if known is not None and answer.status == NOT_MODIFIED:
            return known
        found = _from_archive(path, url, cache, limits)
    cache.note_fetch(url, found, answer.headers)
    return found


def _from_s3(url: str, cache: SourceCache, limits: SourceLimits) -> ResolvedSource:
    fingerprint = s3.fingerprint(url)
    archive = url.rpartition("/")[2] if is_archive_name(url) else None
    key = source_key("s3", archive or "", fingerprint)
    if (found := cache.get(key, url)) is not None:
        return found
    sizes = s3.sizes(url)
    limits.require_entries(len(sizes))
    wanted = {name for name in sizes if promises_image(name) or name == archive}
    limits.require_source_bytes(sum(sizes[name] for name in wanted))
    with cache.download_folder() as staging:
        fetched = s3.download(url, staging / "objects", keep=wanted.__contains__) if wanted else staging
        if s3.fingerprint(url) != fingerprint:
            raise UnusableSourceError("was changed while it was read; try again")
        if fetched.name == archive:
            with fetched.open("rb") as file, closing(archive_entries(file, limits)) as entries:
                return cache.keep(entries, url, key=key)
        root = (staging / "objects").resolve()
        others = ((name, _no_image) for name in sorted(set(sizes) - wanted))
        return cache.keep((*_tree(root, limits), *others), url, key=key)


def _from_folder(path: Path, reference: str, cache: SourceCache, limits: SourceLimits) -> ResolvedSource:
    root = opened(path)
    if not _is_dataset(root):
        return ResolvedSource(path, reference, kind="folder")
    return replace(cache.keep(_tree(root, limits), reference), kind="dataset")


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
            size += _size(Path(folder, file)) if promises_image(name) else 0
            entries.append((name, partial(read, root, name, limits.files)))
    limits.require_source_bytes(size)
    return sorted(entries, key=lambda entry: entry[0])


def _size(path: Path) -> int:
    """Bytes of a file, or of the one that a link leads to; 0 where it leads nowhere."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _no_image() -> bytes:
    raise NotAnImageError("is not an image; remove it")
