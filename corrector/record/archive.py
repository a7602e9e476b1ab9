"""The images of a record in one archive, from which a record is restored: one S3 object instead of a hundred."""

from __future__ import annotations

import re
from pathlib import Path
from zipfile import ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from corrector.record.correction_record import IMAGES_FOLDER, RecordError

ARCHIVE_FILE = "images.zip"

_MEMBER = re.compile(
    rf"{IMAGES_FOLDER}/(exemplars|held_out|before|after|(guards|negatives)/\d{{1,4}}/(before|after))/\d{{3,6}}\.png",
    re.ASCII,
)


def pack_images(folder: Path, path: Path) -> Path:
    """Write the images of the record in `folder` to the new archive `path`; the same images give the same bytes."""
    with ZipFile(path, "x", ZIP_STORED) as archive:
        for file in sorted((folder / IMAGES_FOLDER).rglob("*.png")):
            archive.writestr(ZipInfo(file.relative_to(folder).as_posix()), file.read_bytes())
    return path


def unpack_images(path: Path, folder: Path) -> None:
    """Write the images in the archive `path` below `folder`, where `CorrectionRecord.images` finds them.

    Raises:
        RecordError: `path` is no archive, or holds a file that is no image of a record.
    """
    try:
        with ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                # An uncompressed member is no larger than the archive.
                if not _MEMBER.fullmatch(member.filename) or member.compress_type != ZIP_STORED:
                    raise RecordError(
                        f"{path}: holds {member.filename!r}, which is no image of a record; not unpacked"
                    )
            for member in members:
                archive.extract(member, folder)
    except BadZipFile as error:
        raise RecordError(f"{path}: not an archive of images: {error}") from error
