"""Reads the chunks of a PNG file: leaves out its metadata, and returns the chunks that say what its colours mean."""

import zlib

COLOURS = (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM")
"""Chunks about the meaning of the colours, the one that counts first (PNG third edition, section 4.3)."""

_KEPT = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")
"""Other ancillary chunks that change the picture: transparency, rotation and frames."""
_SIGNATURE_BYTES = 8
_AROUND_BYTES = 12
_ANCILLARY = 0x20
"""Bit of a chunk's first letter: a decoder may leave the chunk out."""


def without_metadata(content: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The file without texts, XMP, colour chunks and damaged ancillary chunks, and the data of its colour chunks.

    Pillow refuses a whole file for one text or profile that unpacks to more than 1 MiB, or for a wrong checksum in
    metadata; viewers show the picture. Nothing is decompressed here. What follows a cut or damaged chunk header is
    kept as it is, so that Pillow reports it.
    """
    parts, colours = [content[:_SIGNATURE_BYTES]], dict[bytes, bytes]()
    position = _SIGNATURE_BYTES
    while position < len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        name = content[position + 4 : position + 8]
        end = position + _AROUND_BYTES + length
        if end > len(content) or not name.isalpha():
            parts.append(content[position:])
            break
        if not name[0] & _ANCILLARY:
            parts.append(content[position:end])
        elif name in _KEPT + COLOURS and _is_intact(content, position, end):
            if name in COLOURS:
                colours.setdefault(name, content[position + 8 : end - 4])
            else:
                parts.append(content[position:end])
        position = end
    return b"".join(parts), colours


def _is_intact(content: bytes, start: int, end: int) -> bool:
    return zlib.crc32(content[start + 4 : end - 4]) == int.from_bytes(content[end - 4 : end], "big")
