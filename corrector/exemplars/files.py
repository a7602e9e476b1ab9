"""Reads the files of an untrusted exemplar folder: bounded in number and size, and only from inside allowed folders."""

import heapq
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from corrector.errors import UserError
from corrector.exemplars.formats import (
    DEVELOP,
    HEAD_BYTES,
    RAW,
    foreign_format_of,
    format_of,
    is_lfs_pointer,
    is_mask,
    is_raw_name,
    promises_image,
)

_CAPTION_ENDINGS = (".txt", ".caption")
_CLUTTER = frozenset(("thumbs.db", "desktop.ini"))
_NAMED = 5
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
        roots: Folders besides the one that is read into which symbolic links may lead.
    """

    files: int = 256
    file_bytes: int = 64 * 2**20
    pixels: int = 64_000_000
    roots: tuple[Path, ...] = ()


class UnreadableFileError(Exception):
    """Why one file cannot be used and what to do about it; the caller turns it into a note."""


class NotAnImageError(UnreadableFileError):
    """Neither the name nor the content is that of an image, or the name is that of a mask."""


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

    Symbolic links are followed only to regular files inside `root` and `limits.roots`. So a folder whose files are links
    into another, as in the hub's cache of Hugging Face, needs a root that holds both; a batch file's own folder and
    CORRECTOR_EXEMPLAR_ROOTS, in which it may name any folder, are such roots.

    Args:
        is_image: Whether it should be an image.

    Raises:
        NotAnImageError: It should be an image, and neither its name nor its first bytes are those of one, or it is a mask;
            the rest is not read.
        UnreadableFileError: It is no regular file, is outside the allowed folders, empty, too large, or may not be read.
    """
    try:
        path = root / name
        if stat.S_ISLNK(path.lstat().st_mode):
            path = _inside((root, *limits.roots), path)
        _require_regular(path.lstat().st_mode)
        descriptor = os.open(path, _FLAGS)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            _require_regular(status.st_mode)
            head = file.read(HEAD_BYTES)
            if is_image:
                require_image(name, head)
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


def require_image(name: str, head: bytes) -> None:
    """Check a file by its name and its first bytes before the rest is read.

    Raises:
        NotAnImageError: Neither is that of an image, or the name is that of a mask.
        UnreadableFileError: Both are those of a camera raw file.
    """
    found, foreign, raw = format_of(head), foreign_format_of(head), is_raw_name(name)
    if raw and (found == "TIFF" or foreign == RAW):
        raise UnreadableFileError(DEVELOP)
    promised = promises_image(name) or (raw and is_lfs_pointer(head))
    if is_mask(name) or not (promised or found or foreign):
        raise NotAnImageError("is not an image; remove it")


def ignored(names: Sequence[str], images: Iterable[str]) -> list[str]:
    """One note on each kind of files that are left out: masks, camera raw files, captions of `images`, and others."""
    stems = {PurePath(image).stem for image in images}
    kinds: dict[str, list[str]] = {}
    for name in names:
        path = PurePath(name)
        if is_mask(name):
            kind = "masks of a training tool (-masklabel, -condlabel), left out"
        elif is_raw_name(name):
            kind = "camera raw files, left out (develop them to PNG or JPEG)"
        elif path.suffix.lower() in _CAPTION_ENDINGS and path.stem in stems:
            kind = "captions, not read (the batch file's prompt counts)"
        else:
            kind = "not images, ignored"
        kinds.setdefault(kind, []).append(name)
    return [f"{kind}: {listed(each)}" for kind, each in sorted(kinds.items())]


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(printable(name) for name in names[:_NAMED]) + more


def printable(text: str) -> str:
    """`text` on one line, with terminal control characters and unencodable characters escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def _inside(roots: Sequence[Path], link: Path) -> Path:
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        raise UnreadableFileError(
            "is a symbolic link that leads nowhere; copy the image itself here"
        ) from None
    if not any(target.is_relative_to(os.path.realpath(root)) for root in roots):
        raise UnreadableFileError(
            f'is a symbolic link into "{printable(str(target.parent))}", outside of the allowed folders, and is not followed; '
            "add that folder to CORRECTOR_EXEMPLAR_ROOTS, or copy the images themselves here"
        )
    return target


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise UnreadableFileError("is a folder, and folders inside are not searched; move its images up")
    if not stat.S_ISREG(mode):
        raise UnreadableFileError("is a pipe, socket or device, not a file; remove it")
