"""Decodes the bytes of an image file to upright sRGB pixels, or says in one sentence why it cannot."""

import io
import re
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, UnidentifiedImageError

from corrector.exemplars.colours import ColourSpace, png_colour_space, to_srgb
from corrector.exemplars.files import Limits, UnreadableFileError, printable
from corrector.exemplars.formats import DEVELOP, HEAD_BYTES, RAW, foreign_format_of, format_of, is_lfs_pointer
from corrector.exemplars.png_chunks import without_metadata
from corrector.exemplars.tiff_directories import require_full_picture

BACKGROUND = (255, 255, 255)
"""What transparent pixels are laid over: white, as a page or a browser shows them."""

MAX_JPEG_SCANS = 100
"""Encoders write 10 scans or so. Every further one costs a pass over the whole picture for a hundred bytes of
file: 60 ms each at 64 megapixels, which is hours for a file of a few megabytes made for that purpose."""

_ORIENTATION_TAG = 0x0112
_PHOTOMETRIC_TAG = 0x0106
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)
_ELSE = "save it as PNG or JPEG"


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        image: RGB, upright, in sRGB, opaque.
        format: A key of `formats.ENDINGS`.
        remarks: Changes that the file's owner may not expect.
    """

    image: Image.Image
    format: str
    remarks: tuple[str, ...]


def decode(content: bytes, limits: Limits) -> Picture:
    """Decodes an image file of one of the formats in `formats.ENDINGS`.

    Only the first frame is read. It is rotated as EXIF says. Colours are converted to sRGB (`colours.to_srgb`) from an
    embedded ICC profile or, in a PNG, from what cICP, gAMA and cHRM say. A CMYK JPEG is read as inverted if it has
    Adobe's marker. Of 16 bits a channel the upper 8 are kept. Alpha is composited over `BACKGROUND`; a BMP whose alpha is
    0 everywhere is opaque, as viewers show it. Texts and XMP of a PNG are skipped.

    Raises:
        UnreadableFileError: The file is damaged, cut off, has too many pixels, its colours are not defined, or it is a
            camera raw file or a Git LFS pointer.
    """
    expected = _require_image(content[:HEAD_BYTES])
    if expected == "JPEG" and _jpeg_scans(content) > MAX_JPEG_SCANS:
        raise UnreadableFileError(
            f"is a JPEG of more than {MAX_JPEG_SCANS} scans, made to waste time; {_ELSE}"
        )
    space = None
    if expected == "TIFF":
        require_full_picture(content)
    if expected == "PNG":
        content, chunks = without_metadata(content)
        space = png_colour_space(chunks)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=(expected,)) as opened:
                _require_bounded(opened.size, limits)
                opened.load()
                return _picture(opened, expected, space)
    except UnreadableFileError:
        raise
    except Image.DecompressionBombError:
        raise UnreadableFileError(
            f"has far more than {limits.pixels / 1e6:g} megapixels; save it smaller"
        ) from None
    except UnidentifiedImageError:
        raise UnreadableFileError(
            f"begins like a {expected} image but its header is damaged; copy it again"
        ) from None
    except Exception as error:  # Pillow raises many types for damaged files
        raise UnreadableFileError(_damage(expected, error)) from None


def _require_image(head: bytes) -> str:
    """The format that the first bytes show; raises UnreadableFileError where it is none that is read."""
    expected, foreign = format_of(head), foreign_format_of(head)
    if expected:
        return expected
    if is_lfs_pointer(head):
        raise UnreadableFileError("is a Git LFS pointer, not the image itself; run git lfs pull")
    if foreign == RAW:
        raise UnreadableFileError(DEVELOP)
    if foreign:
        raise UnreadableFileError(f"is {foreign} image, which is not read; {_ELSE}")
    raise UnreadableFileError("holds no image; replace or remove it")


def _picture(opened: Image.Image, name: str, space: ColourSpace | None) -> Picture:
    remarks = []
    if getattr(opened, "is_animated", False):
        remarks.append("holds several pictures; the first is used")
    eight_bit, alpha = _eight_bit(opened)
    profile = opened.info.get("icc_profile")
    image, converted_from = to_srgb(eight_bit, ColourSpace(profile) if isinstance(profile, bytes) else space)
    if converted_from:
        remarks.append(f"has other colours than sRGB, which were converted ({converted_from})")
    elif eight_bit.mode == "CMYK":
        remarks.append("is CMYK without a usable profile, and viewers differ on its colours; save it as sRGB")
    visible = (255, 255) if alpha is None else alpha.getextrema()
    if alpha is not None and visible == (0, 0) and name != "BMP":
        raise UnreadableFileError("is transparent throughout; save it without transparency")
    if alpha is not None and visible not in ((0, 0), (255, 255)):
        backdrop = Image.new("RGB", image.size, BACKGROUND)
        backdrop.paste(image, mask=alpha)
        image = backdrop
        remarks.append("has transparent pixels, laid over white")
    turn = _UPRIGHT.get(_orientation(opened))
    if turn is not None:
        image = image.transpose(turn)
    return Picture(image, name, tuple(remarks))


def _eight_bit(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """The colours in mode L, RGB or CMYK, and alpha in mode L or None."""
    mode = image.mode
    if mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        if image.format == "TIFF" and image.getexif().get(_PHOTOMETRIC_TAG) == 0:
            values = ~values  # 0 is white; Pillow heeds that for 8 bits only
        grey = Image.fromarray((values >> 8).astype(np.uint8))
        if "transparency" not in image.info:
            return grey, None
        clear = values == image.info["transparency"]
        return grey, Image.fromarray(np.where(clear, 0, 255).astype(np.uint8))
    if mode in ("I", "F", "LAB", "HSV"):
        raise UnreadableFileError(f"has pixels ({mode}) that do not say how bright they are; {_ELSE}")
    if mode == "CMYK":
        return _ink(image), None
    colours = "L" if mode in ("1", "L", "LA", "La") else "RGB"
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        return rgba.convert(colours), rgba.getchannel("A")
    return image.convert(colours), None


def _ink(image: Image.Image) -> Image.Image:
    """CMYK with 255 as full ink. Pillow inverts every CMYK JPEG; only those with Adobe's marker need it."""
    return (
        ImageChops.invert(image) if image.format in ("JPEG", "MPO") and "adobe" not in image.info else image
    )


def _orientation(image: Image.Image) -> int:
    """The orientation in EXIF; one in XMP alone, which Pillow falls back to, turns the picture in no viewer."""
    for name in ("xmp", "XML:com.adobe.xmp"):
        image.info.pop(name, None)
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # with damaged EXIF data the picture is used without rotation
        return 1
    return value if isinstance(value, int) else 1


def _require_bounded(size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width * height > limits.pixels:
        raise UnreadableFileError(
            f"is {width}x{height}, {width * height / 1e6:.3g} megapixels, over the limit of "
            f"{limits.pixels / 1e6:.3g}; save it smaller"
        )


def _jpeg_scans(content: bytes) -> int:
    """Number of scans of a JPEG's first picture: start-of-scan markers outside segments, up to the end marker."""
    scans, position = 0, 2
    while marker := _MARKER.search(content, position):
        position, code = marker.end(), content[marker.end() - 1]
        if code == 0xD9:
            break
        scans += code == 0xDA
        if scans > MAX_JPEG_SCANS:
            break
        if code not in (0x01, 0xD8):
            position += max(2, int.from_bytes(content[position : position + 2], "big"))
    return scans


def _damage(name: str, error: Exception) -> str:
    reason = printable(str(error))[:120]
    if "truncated" in reason:
        return f"is a {name} image that is cut off ({reason}); copy it again"
    return f"is a damaged {name} image ({reason or type(error).__name__}); copy it again or {_ELSE}"
