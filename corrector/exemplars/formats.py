"""Which image format a file holds, by its first bytes and by the ending of its name."""

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
}
_BMP_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)


def promises_image(name: str) -> bool:
    """Whether the ending of a name is that of an image, also of a format that is not supported."""
    return PurePath(name).suffix.lower() in {*sum(ENDINGS.values(), ()), *FOREIGN_ENDINGS}


def format_of(head: bytes) -> str | None:
    """The format that the first bytes show: a key of `ENDINGS`, or None."""
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
    if head[4:8] == b"ftyp" and head[8:10] in (b"he", b"mi"):
        return "a HEIC"
    for name, starts in _FOREIGN_STARTS.items():
        if head.startswith(starts):
            return name
    return None
