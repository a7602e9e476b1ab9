"""Reads the files of an untrusted exemplar folder: bounded in number and size, and only from inside the folder."""

import heapq
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corrector.errors import UserError
from corrector.exemplars.formats import HEAD_BYTES, foreign_format_of, format_of, promises_image

_CLUTTER = frozenset(("thumbs.db", "desktop.ini"))
_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
)


@dataclass(frozen=True)
class Limits:
    """Bounds on reading one folder.

    Attributes:
        files: Number of files; those with an image's ending come first, then by name.
        file_bytes: Size of one file.
        pixels: Width times height of one picture, known from its header before anything is decoded.
    """

    files: int = 256
    file_bytes: int = 64 * 2**20
    pixels: int = 64_000_000


class UnreadableFileError(Exception):
    """Why one file cannot be used and what to do about it; the caller turns it into a note."""


class NotAnImageError(UnreadableFileError):
    """Neither the name nor the content is that of an image."""


def opened(folder: Path) -> Path:
    """The real path of `folder`.

    Raises:
        UserError: It is missing, no folder, or may not be listed.
    """
    try:
        root = folder.resolve(strict=True)
        with os.scandir(root):
            return root
    except FileNotFoundError:
        raise UserError(f'exemplars: there is no folder "{printable(str(folder))}"; check the path') from None
    except NotADirectoryError:
        raise UserError(
            f'exemplars: "{printable(str(folder))}" is a file; give the folder that holds the images'
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        reason = printable(getattr(error, "strerror", None) or str(error))
        raise UserError(
            f'exemplars: the folder "{printable(str(folder))}" cannot be read ({reason})'
        ) from None


def names(root: Path, limits: Limits) -> tuple[list[str], int]:
    """The sorted names of up to `limits.files` files, and the number of files beyond the limit.

    Memory is bounded by the limit. Hidden files and the thumbnail databases of desktops are left out without a note.
    """
    visible = 0

    def ranked() -> Iterator[tuple[bool, str]]:
        nonlocal visible
        with os.scandir(root) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name.lower() not in _CLUTTER:
                    visible += 1
                    yield not promises_image(entry.name), entry.name

    chosen = sorted(name for _, name in heapq.nsmallest(limits.files, ranked()))
    return chosen, visible - len(chosen)


def read(root: Path, name: str, limits: Limits, *, is_image: bool = True) -> bytes:
    """The bytes of one file directly in `root`, a real path.

    Symbolic links are followed only to regular files inside `root`.

    Args:
        is_image: Whether it should be an image.

    Raises:
        NotAnImageError: It should be an image, and neither its name nor its first bytes are those of one; the rest is
            not read.
        UnreadableFileError: It is no regular file, is outside `root`, empty, too large, or may not be read.
    """
    try:
        path = root / name
        if stat.S_ISLNK(path.lstat().st_mode):
            path = _inside(root, path)
        _require_regular(path.lstat().st_mode)
        descriptor = os.open(path, _FLAGS)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            _require_regular(status.st_mode)
            head = file.read(HEAD_BYTES)
            if is_image and not (promises_image(name) or format_of(head) or foreign_format_of(head)):
                raise NotAnImageError("is not an image; remove it")
            if status.st_size > limits.file_bytes:
                raise UnreadableFileError(
                    f"is larger than {limits.file_bytes / 2**20:g} MiB; save it smaller"
                )
            content = head + file.read(max(0, limits.file_bytes - len(head)))
    except OSError as error:
        raise UnreadableFileError(
            f"cannot be opened ({error.strerror}); make it readable or remove it"
        ) from None
    if not content:
        raise UnreadableFileError("is empty (0 bytes); copy it again or remove it")
    return content


def printable(text: str) -> str:
    """`text` on one line, with terminal control characters and unencodable characters escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _inside(root: Path, link: Path) -> Path:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        raise UnreadableFileError(
            "is a symbolic link that leads nowhere; copy the image itself here"
        ) from None
    if not target.is_relative_to(root):
        raise UnreadableFileError(
            "is a symbolic link that leads outside the folder and is not followed; copy the image itself here"
        )
    return target


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise UnreadableFileError("is a folder, and folders inside are not searched; move its images up")
    if not stat.S_ISREG(mode):
        raise UnreadableFileError("is a pipe, socket or device, not a file; remove it")
