"""encode_image: encodes pixels as png, jpeg or webp, with metadata."""

import io
import json
from collections.abc import Mapping
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from serving.ingress.http.schema import OutputFormat

NAMESPACE = "urn:prompt-corrector:image:1"
"""Of the XMP properties."""

_PNG_EFFORT = 1
"""zlib's level; at level 6 a photograph is a few percent smaller and takes several times as long."""

_ENTITIES = {"\r": "&#13;"}
"""An XML parser reads a carriage return as a line feed."""

Metadata = Mapping[str, str | int | float | None]


def encode_image(pixels: np.ndarray, output_format: OutputFormat, quality: int, metadata: Metadata) -> bytes:
    """The content of an image file.

    Args:
        pixels: `[height, width, 3]`, uint8, RGB.
        quality: 0 to 100; png has none.
        metadata: Written to png as one iTXt chunk per name, to jpeg and webp as XMP properties; None is left out.
    """
    image = Image.fromarray(pixels)
    file = io.BytesIO()
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in metadata.items()
        if value is not None
    }
    if output_format == "png":
        info = PngInfo()
        for name, text in texts.items():
            info.add_itxt(name, text)
        image.save(file, "PNG", pnginfo=info, compress_level=_PNG_EFFORT)
    else:
        image.save(file, output_format, quality=quality, xmp=_xmp(texts))
    return file.getvalue()


def _xmp(texts: Mapping[str, str]) -> bytes:
    """An XMP packet (ISO 16684-1) of simple properties."""
    properties = "".join(f"<pc:{name}>{escape(text, _ENTITIES)}</pc:{name}>" for name, text in texts.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" xmlns:pc="{NAMESPACE}">{properties}</rdf:Description>'
        '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
    ).encode()
