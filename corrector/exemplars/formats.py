"""Which image format a file holds, by its first bytes and by the ending of its name."""

import re
from pathlib import PurePath

ENDINGS = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
}
"""The formats that are read and the endings of their names, the usual one first."""

FOREIGN_ENDINGS = (".avif", ".heic", ".heif", ".jxl", ".jp2", ".psd", ".svg")
"""Endings of image formats that are not read, and say so."""

_RAW_ENDINGS = (
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".sr2", ".srf", ".orf", ".rw2", ".rwl"),
    *(".raf", ".pef", ".srw", ".3fr", ".fff", ".erf", ".dcr", ".kdc", ".mrw", ".x3f", ".iiq"),
)
RAW = "a camera raw"
DEVELOP = "is a camera raw file; develop it to PNG or JPEG"
"""What is wrong with a camera raw file, and the remedy. The preview in it is never used."""

HEAD_BYTES = 32
"""As many of a file's first bytes as the functions here look at."""

_STARTS = {
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "JPEG": (b"\xff\xd8\xff",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "TIFF": (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
}
_FOREIGN_STARTS = {
    "a JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL "),
    "a JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "a Photoshop": (b"8BPS",),
    "an SVG": (b"<svg",),
    RAW: (
        b"II*\0\x10\0\0\0CR",
        b"II\x1a\0\0\0HEAPCCDR",
        b"IIRO",
        b"IIRS",
        b"IIU\0",
        b"MMOR",
        b"FUJIFILMCCD-RAW",
        b"FOVb",
        b"\0MRM",
    ),
}
_PHASE_ONE = re.compile(rb"(II\*\0|MM\0\*)....(IIII.waR|MMMMRaw)", re.DOTALL)
_LFS_POINTERS = (b"version https://git-lfs", b"version https://hawser")
_MASK = re.compile(r".*-(mask|cond)label\.\w+", re.IGNORECASE | re.DOTALL)
_BMP_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)


def promises_image(name: str) -> bool:
    """Whether the ending of a name is that of an image, also of a format that is not supported."""
    return PurePath(name).suffix.lower() in {*sum(ENDINGS.values(), ()), *FOREIGN_ENDINGS}


def is_raw_name(name: str) -> bool:
    """Whether the ending of a name is that of a camera raw file."""
    return name.lower().endswith(_RAW_ENDINGS)


def is_mask(name: str) -> bool:
    """Whether a file is by its name a mask of OneTrainer, which lies beside the image that it belongs to."""
    return _MASK.fullmatch(name) is not None


def is_lfs_pointer(head: bytes) -> bool:
    """Whether the first bytes are those of a Git LFS pointer, a text that stands for a file that was not fetched."""
    return head.startswith(_LFS_POINTERS)


def format_of(head: bytes) -> str | None:
    """The format that the first bytes show: a key of `ENDINGS`, or None."""
    if foreign_format_of(head):
        return None
    for name, starts in _STARTS.items():
        if head.startswith(starts):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADER_BYTES:
        return "BMP"
    return None


def foreign_format_of(head: bytes) -> str | None:
    """The name, with its article, of an image format that is recognised but not supported; or None."""
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"):
        return "an AVIF"
    if head[4:12] == b"ftypcrx " or _PHASE_ONE.match(head):
        return RAW
    if head[4:8] == b"ftyp" and head[8:10] in (b"he", b"mi"):
        return "a HEIC"
    for name, starts in _FOREIGN_STARTS.items():
        if head.startswith(starts):
            return name
    return None
