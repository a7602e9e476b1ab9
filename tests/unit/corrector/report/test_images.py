"""Images in a page: small ones pixel for pixel, large ones bounded, unreadable ones named."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from corrector.report.images import InlineImage, inline_image


def _decoded(image: InlineImage) -> Image.Image:
    assert image.uri is not None
    kind, _, data = image.uri.partition(";base64,")
    assert kind == "data:image/webp"
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def _noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_a_small_image_keeps_every_pixel(tmp_path: Path) -> None:
    original = _noise(64, 64)
    original.save(tmp_path / "a.png")
    image = inline_image(tmp_path / "a.png", 512)
    assert image.pixelated
    assert _decoded(image).tobytes() == original.tobytes()


def test_a_large_image_is_reduced_in_its_proportions(tmp_path: Path) -> None:
    _noise(1200, 900).save(tmp_path / "a.png")
    image = inline_image(tmp_path / "a.png", 512)
    assert not image.pixelated
    assert _decoded(image).size == (image.width, image.height) == (512, 384)


def test_what_cannot_be_read_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    assert inline_image(tmp_path / "a.png", 512).uri is None
    assert inline_image(tmp_path / "missing.png", 512).uri is None
