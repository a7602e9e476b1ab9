"""Embeds images in a page as data URIs, re-encoded and bounded in size."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

PIXEL_ART = 160
"""Up to this many pixels a side an image is kept lossless and enlarged by whole pixels."""


@dataclass(frozen=True)
class InlineImage:
    """An image for a page.

    Attributes:
        uri: A data URI (WebP), or None where the file cannot be read.
        width, height: Pixels of the encoded image.
        pixelated: Whether the browser enlarges it without smoothing.
    """

    uri: str | None
    width: int
    height: int
    pixelated: bool


def inline_image(path: Path, longest: int) -> InlineImage:
    """The image of `path`, at most `longest` pixels a side: lossless if small, else WebP at quality 82."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return InlineImage(None, longest, longest, False)
    return inline_picture(image, longest)


def inline_picture(image: Image.Image, longest: int) -> InlineImage:
    """As `inline_image`, of an RGB picture in memory, which may be made smaller."""
    pixelated = max(image.size) <= PIXEL_ART
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=2.0)
    encoded = io.BytesIO()
    image.save(encoded, "WEBP", lossless=pixelated, quality=100 if pixelated else 82, method=2)
    uri = "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
    return InlineImage(uri, *image.size, pixelated)
