"""Which folders a batch file may name.

A batch file may come from anyone, so a folder that it names lies inside the batch file's own folder or inside
one of the roots that the environment allows (`CORRECTOR_EXEMPLAR_ROOTS`; without it, the working directory).
Absolute paths, `..` and symbolic links are fine as long as they end inside; what counts is where they lead.
"""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from corrector.errors import UserError
from corrector.prompts.located_values import quoted


def allowed_path(written: str, folder: Path, roots: Sequence[Path]) -> Path:
    """The absolute path, links followed, that `written` means in the batch file's folder; it need not exist.

    Raises:
        UserError: It is an address, needs a home folder, or leads outside of `folder` and `roots`.
    """
    if "://" in written:
        raise UserError(f"{quoted(written)} is an address; name a folder of images")
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


def check_exemplar_folder(written: str, folder: Path, roots: Sequence[Path]) -> None:
    """Check that `written` names a folder with at least one visible file, without opening any.

    Raises:
        UserError: It does not; the message names the nearest folder there is.
    """
    path = allowed_path(written, folder, roots)
    try:
        if not path.exists():
            raise UserError(f"no folder {quoted(written)}{_nearest(path, written)}")
        if not path.is_dir():
            raise UserError(f"{quoted(written)} is not a folder; name the folder that holds the images")
        with os.scandir(path) as entries:
            if any(not entry.name.startswith(".") and entry.is_file() for entry in entries):
                return
    except OSError as error:
        raise UserError(f"{quoted(written)} cannot be read: {error.strerror}") from None
    raise UserError(f"no images in {quoted(written)}; expected .png, .jpg or .webp")


def _nearest(path: Path, written: str) -> str:
    if not path.parent.is_dir():
        return f"; there is no folder {quoted(str(Path(written).parent))} either"
    names = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {quoted(str(Path(written).parent / close[0]))}?" if close else ""
