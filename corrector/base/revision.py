"""The revision of a base: SHA-256 over the files that determine its images."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from corrector.files import file_sha256, write_atomically
from corrector.settings import Settings

_SUFFIXES = {".safetensors", ".json", ".txt", ".model"}

Known: TypeAlias = dict[str, tuple[int, int, str]]
"""Relative path -> size, modification time in nanoseconds, SHA-256."""


def folder_revision(folder: Path) -> str:
    """SHA-256 in hex over the sorted (relative path, SHA-256) of weights, configurations and vocabularies.

    ``base.json``, which holds steps and guidance, does not count. Digests of files are cached by size and modification
    time; where the cache folder cannot be written they are computed every time.
    """
    folder = folder.resolve()
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*"))}
    digests = _digests(
        folder, {name: path for name, path in files.items() if belongs_to_pipeline(name) and path.is_file()}
    )
    listing = "".join(f"{name}\0{digest}\n" for name, digest in sorted(digests.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


def file_revision(path: Path) -> str:
    """SHA-256 of one file in hex, cached likewise."""
    path = path.resolve()
    return _digests(path, {path.name: path})[path.name]


def belongs_to_pipeline(name: str) -> bool:
    """Whether a file, by its path in the folder, is part of the pipeline; single-file checkpoints beside it are not."""
    in_part = "/" in name and not name.startswith(".")
    return name == "model_index.json" or (in_part and Path(name).suffix in _SUFFIXES)


def _digests(place: Path, files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of ``files``, cached under ``place``."""
    memory = (
        Settings.from_environment().cache
        / "digests"
        / f"{hashlib.sha256(os.fsencode(place)).hexdigest()}.json"
    )
    known = _recall(memory)
    current: Known = {}
    for name, path in files.items():
        size, modified = path.stat().st_size, path.stat().st_mtime_ns
        before = known.get(name)
        fresh = before is not None and before[:2] == (size, modified)
        current[name] = before if before is not None and fresh else (size, modified, file_sha256(path))
    if current != known:
        _remember(memory, current)
    return {name: digest for name, (_, _, digest) in current.items()}


def _recall(memory: Path) -> Known:
    try:
        stored = json.loads(memory.read_text(encoding="utf-8"))
        return {
            str(name): (int(size), int(modified), str(digest))
            for name, (size, modified, digest) in stored.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _remember(memory: Path, known: Known) -> None:
    try:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, json.dumps(known))
    except OSError:
        return
