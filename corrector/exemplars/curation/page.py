"""The review page of a curation: one HTML file on which a person keeps or drops images and saves a decision file."""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from pathlib import Path

from torch import Tensor

from corrector.exemplars.curation.verdicts import Curation
from corrector.exemplars.fit import to_image
from corrector.files import write_atomically

_LONGEST = 384
_PIXEL_ART = 160


def write_review_page(curation: Curation, path: Path, *, title: str) -> Path:
    """Write the page, whole or not at all. It works from a file, asks nothing of any machine, and escapes all texts.

    Returns:
        `path`.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = (files("corrector.exemplars.curation") / "page.html.jinja").read_text(encoding="utf-8")
    images = [(each, None if each.image is None else _data_uri(each.image)) for each in curation.images]
    html = environment.from_string(template).render(title=title, curation=curation, images=images)
    return write_atomically(path, html)


def _data_uri(tensor: Tensor) -> str:
    image = to_image(tensor)
    small = max(image.size) <= _PIXEL_ART
    image.thumbnail((_LONGEST, _LONGEST))
    encoded = io.BytesIO()
    image.save(encoded, "WEBP", lossless=small, quality=82)
    return "data:image/webp;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")
