"""require_full_picture: refuses TIFF files whose first picture is only a preview, above all camera raw files."""

import io
import warnings
from collections.abc import Iterator

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from corrector.exemplars.files import UnreadableFileError
from corrector.exemplars.formats import DEVELOP

_SUBFILE_TYPE, _PHOTOMETRIC, _SUB_DIRECTORIES, _DNG_VERSION = 254, 262, 330, 50706
_REDUCED = 1
_SENSOR = (32803, 34892)
"""Photometric interpretations of a camera's sensor: a colour filter array, and linear raw."""
_MOST = 32
"""Directories that are looked at."""


def require_full_picture(content: bytes) -> None:
    """Raises UnreadableFileError for a camera raw file (DNG, NEF, ARW, PEF, ...), and where the first picture is a preview.

    Such files begin with a small picture for viewers. The directories inside tell what the file is; its name does not count.
    """
    kinds = []
    for directory in _directories(content):
        if _DNG_VERSION in directory or directory.get(_PHOTOMETRIC) in _SENSOR:
            raise UnreadableFileError(DEVELOP)
        kinds.append(directory.get(_SUBFILE_TYPE, 0))
    if len(kinds) > 1 and isinstance(kinds[0], int) and kinds[0] & _REDUCED:
        raise UnreadableFileError(
            "is a TIFF image that begins with a preview of the picture; save the picture itself as PNG or JPEG"
        )


def _directories(content: bytes) -> Iterator[ImageFileDirectory_v2]:
    """The directories of a TIFF file, those inside others too, as far as they can be read. Pillow bounds their size."""
    stream, seen = io.BytesIO(content), set[int]()
    header = content[: 16 if content[2:3] == b"+" else 8]
    try:
        wanted = [ImageFileDirectory_v2(header).next]
        while wanted and len(seen) < _MOST:
            offset = wanted.pop(0)
            if offset in seen or not 0 < offset < len(content):
                continue
            seen.add(offset)
            directory = ImageFileDirectory_v2(header)
            stream.seek(offset)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                directory.load(stream)
                below = directory.get(_SUB_DIRECTORIES, ())
            yield directory
            wanted += [directory.next, *(below if isinstance(below, tuple) else (below,))]
    except Exception:  # Pillow raises many types for damaged files; decoding says what is wrong
        return
