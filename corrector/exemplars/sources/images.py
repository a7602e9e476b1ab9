"""Writes the images of an archive or a tree of folders into one folder, under names that are safe on any disk."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from corrector.exemplars.files import (
    Limits,
    NotAnImageError,
    UnreadableFileError,
    ignored,
    printable,
    require_image,
)
from corrector.exemplars.formats import HEAD_BYTES
from corrector.exemplars.sources.limits import UnusableSourceError

CAPTIONS = ("metadata.jsonl", "metadata.csv")
"""Files with the captions of a Hugging Face dataset folder."""

Entry: TypeAlias = tuple[str, Callable[[], bytes]]
"""A file's name, with / between folders, and what reads it; reading may raise `UnreadableFileError`."""

_NAME_BYTES = 200
_NAMED = 5


def safe_parts(name: str) -> tuple[str, ...]:
    """The folders and the file name of an archive's entry; both / and \\ separate them.

    Raises:
        UnusableSourceError: It is absolute, or leads upwards.
    """
    unix = name.replace("\\", "/")
    parts = PurePosixPath(unix).parts
    if unix.startswith("/") or ".." in parts or (parts and parts[0][1:2] == ":"):
        raise UnusableSourceError(
            f'its entry "{printable(name)[:100]}" leads outside of it; pack the images again, with relative names'
        )
    return parts


def is_hidden(parts: Iterable[str]) -> bool:
    """Whether a file is one that systems add: hidden, in a hidden folder, or in macOS's `__MACOSX`."""
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def flat_name(parts: tuple[str, ...]) -> str:
    """One printable file name for a path, at most 200 bytes long: `train/1.png` is `train__1.png`."""
    name = "__".join(printable(part).replace("\\", "%") for part in parts)
    if len(name.encode()) <= _NAME_BYTES:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{digest}-{name.encode()[-_NAME_BYTES // 2 :].decode(errors='ignore')}"


def read_entry(stream_read: Callable[[int], bytes], name: str, size: int, limits: Limits) -> bytes:
    """The `size` bytes of an archive's entry; of one that is no image, only the first are read.

    Args:
        stream_read: Returns the next so many bytes of the entry.

    Raises:
        NotAnImageError: Neither its name nor its first bytes are those of an image, or it is a mask.
        UnreadableFileError: It is empty or too large.
        UnusableSourceError: The archive ends before the entry does.
    """
    head = stream_read(min(size, HEAD_BYTES))
    require_image(name, head)
    if size == 0:
        raise UnreadableFileError("is empty (0 bytes); copy it again or remove it")
    if size > limits.file_bytes:
        raise UnreadableFileError(f"is larger than {limits.file_bytes / 2**20:g} MiB; save it smaller")
    content = head + stream_read(size - len(head))
    if len(content) != size:
        raise UnusableSourceError(f'is cut off in "{printable(name)[:100]}"; copy or pack it again')
    return content


@dataclass
class ImageFolder:
    """A folder that images are written into; `notes` say what was left out.

    Attributes:
        written: Number of images.
        digest: SHA-256 over the names and contents of the images, in the order in which they were added.
    """

    folder: Path
    notes: list[str] = field(default_factory=list)
    written: int = 0
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    _others: list[str] = field(default_factory=list)
    _names: set[str] = field(default_factory=set)

    def add(self, entry: Entry) -> None:
        """Write one file if it is an image.

        Raises:
            UnusableSourceError: Another file has its name.
            OSError: The disk cannot take it.
        """
        name, read = entry
        parts = safe_parts(name)
        if not parts or is_hidden(parts):
            return
        flat = flat_name(parts)
        if parts[-1].lower() in CAPTIONS:
            self.notes.append(f"{flat}: captions are not read; the batch file's prompt counts")
            return
        try:
            content = read()
        except NotAnImageError:
            self._others.append(flat)
            return
        except UnreadableFileError as problem:
            self.notes.append(f"{flat}: {problem}")
            return
        same = unicodedata.normalize("NFC", flat).casefold()
        if same in self._names:
            raise UnusableSourceError(f'two of its files have the name "{flat}"; rename or remove one')
        self._names.add(same)
        self.digest.update(f"{flat}\0{hashlib.sha256(content).hexdigest()}\n".encode())
        (self.folder / flat).write_bytes(content)
        self.written += 1

    def finish(self) -> tuple[str, ...]:
        """The notes.

        Raises:
            UnusableSourceError: No image was written.
        """
        self.notes += ignored(self._others, (path.name for path in self.folder.iterdir()))
        if any(name.lower().endswith(".parquet") for name in self._others):
            self.notes.append("Parquet files are not read; save the dataset as image files (an imagefolder)")
        if not self.written:
            reasons = "".join(f"\n  {note}" for note in self.notes[-_NAMED:])
            raise UnusableSourceError(f"no images in it; expected .png, .jpg or .webp{reasons}")
        return tuple(self.notes)
