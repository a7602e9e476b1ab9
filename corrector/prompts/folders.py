"""Which folders and archives a batch file may name.

A batch file may come from anyone, so a folder that it names lies inside the batch file's own folder or inside
one of the roots that the environment allows (`CORRECTOR_EXEMPLAR_ROOTS`; without it, the working directory).
Absolute paths, `..` and symbolic links are fine as long as they end inside; what counts is where they lead.
"""

import difflib
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from corrector.errors import UserError
from corrector.prompts.exemplar_references import (
    check_address,
    check_archive_name,
    is_address,
    is_archive_name,
    shown,
)
from corrector.prompts.located_values import quoted

_LEVELS = 3
"""Depth of a dataset's folders: data/train/LABEL."""
_FOLDERS = 16
"""Folders in one that are looked into for a first file."""


def allowed_path(written: str, folder: Path, roots: Sequence[Path]) -> Path:
    """The absolute path, links followed, that `written` means in the batch file's folder; it need not exist.

    Raises:
        UserError: It is an address, needs a home folder, or leads outside of `folder` and `roots`.
    """
    if is_address(written):
        raise UserError(f"{quoted(shown(written))} is an address; name a path")
    if written.startswith("~"):
        raise UserError(f"{quoted(written)}: ~ is not expanded; write the whole path")
    path = Path(os.path.realpath(folder / written))
    allowed = list(dict.fromkeys(os.path.realpath(root) for root in (folder, *roots)))
    if not any(path.is_relative_to(root) for root in allowed):
        raise UserError(
            f"{quoted(written)} leads outside of {' and '.join(allowed)}; move the folder there, or name "
            "one that holds it in CORRECTOR_EXEMPLAR_ROOTS"
        )
    return path


def check_exemplars(written: str, folder: Path, roots: Sequence[Path], *, allow_private: bool) -> None:
    """Check that `written` names exemplars, without opening or fetching any.

    A folder needs a visible file in it or in one of its folders, an archive its ending; an address is only parsed.

    Args:
        allow_private: Whether http:// is allowed.

    Raises:
        UserError: It does not; the message names the nearest folder there is.
    """
    if is_address(written):
        check_address(written, allow_private=allow_private)
        return
    path = allowed_path(written, folder, roots)
    try:
        if not path.exists():
            remedy = with_slashes(written)
            raise UserError(
                f"no folder {quoted(written)}{f'; {remedy}' if remedy else _nearest(path, written)}"
            )
        if path.is_file():
            check_archive_name(written)
            if is_archive_name(written):
                return
        if not path.is_dir():
            raise UserError(
                f"{quoted(written)} is not a folder; name the folder or the archive that holds the images"
            )
        if _has_visible_file(path, levels=_LEVELS):
            return
    except OSError as error:
        raise UserError(f"{quoted(written)} cannot be read: {error.strerror}") from None
    raise UserError(f"no images in {quoted(written)}; expected .png, .jpg or .webp")


def with_slashes(written: str) -> str | None:
    """What to write instead of a path with backslashes, which this system does not take for separators; None without any."""
    if "\\" not in written or os.sep == "\\":
        return None
    return "write / between folders: " + quoted(written.replace("\\", "/"))


def _has_visible_file(folder: Path, *, levels: int) -> bool:
    """Whether there is a visible file in `folder` or up to `levels` folders below it; links to folders are not followed."""
    below = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_file():
                return True
            if levels and entry.is_dir(follow_symlinks=False):
                below.append(folder / entry.name)
    return any(_has_visible_file(each, levels=levels - 1) for each in below[:_FOLDERS])


def _nearest(path: Path, written: str) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {quoted(str(Path(written).parent))} either"
    names = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    if any(unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", path.name) for name in names):
        return (
            "; the folder of this name has its accents in another Unicode form: rename it, or copy its name"
        )
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {quoted(str(Path(written).parent / close[0]))}?" if close else ""
