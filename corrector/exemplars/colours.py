"""Converts colours to sRGB by what a file says of them: an ICC profile, or the colour chunks of a PNG."""

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from corrector.exemplars.files import UnreadableFileError, printable

MAX_PROFILE_BYTES = 16 * 2**20
"""Largest unpacked profile of a PNG; larger ones count as damaged. Profiles of printers have a few megabytes."""

_SRGB_TOLERANCE = 3
"""Largest difference, of 255, that a conversion makes to any colour while its source still counts as sRGB. The many sRGB
profiles differ by 2 at most; a curve of gamma 2.2 differs by 6 in the shadows."""
_GAMMA_TOLERANCE = 0.05
"""Relative difference up to which a gAMA is that of sRGB, 1/2.2, as in libpng (PNG_GAMMA_THRESHOLD)."""
_CURVE_POINTS = 4096
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

_Curve = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
_Chromaticities = tuple[float, ...]
"""x and y of red, green, blue and white."""

_D65 = (0.3127, 0.3290)
_BT709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *_D65)
_PRIMARIES: dict[int, tuple[str, _Chromaticities]] = {
    1: ("BT.709", _BT709),
    2: ("unspecified", _BT709),
    5: ("BT.601 625", (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *_D65)),
    6: ("BT.601 525", (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, *_D65)),
    9: ("BT.2020", (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65)),
    11: ("DCI-P3", (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.314, 0.351)),
    12: ("Display P3", (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, *_D65)),
}
"""By the numbers of ITU-T H.273, which cICP uses."""


def _power(gamma: float) -> _Curve:
    return lambda values: values**gamma


def _srgb_curve(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _bt709_curve(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(values < 0.081, values / 4.5, ((values + 0.099) / 1.099) ** (1 / 0.45))


_TRANSFERS: dict[int, tuple[str, _Curve]] = {
    2: ("unspecified", _srgb_curve),
    4: ("gamma 2.2", _power(2.2)),
    5: ("gamma 2.8", _power(2.8)),
    8: ("linear", _power(1.0)),
    13: ("sRGB", _srgb_curve),
    **dict.fromkeys((1, 6, 14, 15), ("BT.709", _bt709_curve)),
}
_HIGH_DYNAMIC_RANGE = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class ColourSpace:
    """What colours mean.

    Attributes:
        profile: An ICC profile.
        name: For messages; None: the profile is the file's own, and its description is its name.
    """

    profile: bytes
    name: str | None = None


def png_colour_space(chunks: Mapping[bytes, bytes]) -> ColourSpace | None:
    """The colour space that the colour chunks of a PNG name, or None for sRGB.

    Of several chunks the one counts that stands first in `png_chunks.COLOURS`. cHRM without gAMA has the curve of sRGB, gAMA
    without cHRM its primaries.

    Raises:
        UnreadableFileError: It is of high dynamic range, or one that is not converted.
    """
    if len(code := chunks.get(b"cICP", b"")) == 4:
        return _from_code(*code)
    if profile := _unpacked(chunks.get(b"iCCP", b"")):
        return ColourSpace(profile)
    if b"sRGB" in chunks or not (b"gAMA" in chunks or b"cHRM" in chunks):
        return None
    chromaticities: _Chromaticities = _BT709
    curve: _Curve = _srgb_curve
    told: list[str] = []
    gamma = int.from_bytes(chunks.get(b"gAMA", b"")[:4], "big") / 100_000
    if gamma and abs(gamma * 2.2 - 1) > _GAMMA_TOLERANCE:
        curve = _power(1 / gamma)
        told.append(f"gAMA {gamma:g}")
    if len(values := chunks.get(b"cHRM", b"")) == 32:
        white_first = [value / 100_000 for value in struct.unpack(">8I", values)]
        chromaticities = (*white_first[2:], *white_first[:2])
        told.append("cHRM")
    made = _matrix_profile(chromaticities, curve)
    return None if made is None else ColourSpace(made, " and ".join(told))


def to_srgb(image: Image.Image, space: ColourSpace | None) -> tuple[Image.Image, str | None]:
    """The picture in sRGB, and the name of the space that it was converted from; None where its colours are sRGB already.

    The conversion is LittleCMS's, relative colorimetric with black point compensation. Whether a profile is that of sRGB
    is found by converting colours from all over the cube, not by its name. A damaged profile, and one for another kind of
    pixels, is not applied, as in viewers.

    Args:
        image: In mode L, RGB or CMYK.
    """
    if space is None:
        return image.convert("RGB"), None
    if space.name is not None and image.mode == "L":
        image = image.convert("RGB")  # chunks of a PNG apply to grey as well
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(space.profile))
        transform = ImageCms.buildTransform(
            source,
            ImageCms.createProfile("sRGB"),
            image.mode,
            "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        if image.mode != "CMYK" and _changes(transform, _probe(image.mode)) <= _SRGB_TOLERANCE:
            return image.convert("RGB"), None
        converted = ImageCms.applyTransform(image, transform)
        name = space.name or ImageCms.getProfileDescription(source).strip() or "its profile"
    except (ImageCms.PyCMSError, OSError):
        return image.convert("RGB"), None
    return image.convert("RGB") if converted is None else converted, printable(name)[:60]


def _changes(transform: ImageCms.ImageCmsTransform, probe: Image.Image) -> int:
    """The largest difference, of 255, that `transform` makes to a colour of `probe`."""
    after = ImageCms.applyTransform(probe, transform)
    assert after is not None  # only a conversion in place returns nothing
    before = np.asarray(probe.convert("RGB"), dtype=np.int16)
    return int(np.abs(np.asarray(after, dtype=np.int16) - before).max())


@cache
def _probe(mode: str) -> Image.Image:
    """A line of pixels with colours from all over the cube, or with all greys."""
    if mode == "L":
        return Image.frombytes("L", (256, 1), bytes(range(256)))
    levels = (*range(0, 32, 4), *range(32, 256, 16), 255)
    cube = bytes(itertools.chain.from_iterable(itertools.product(levels, repeat=3)))
    return Image.frombytes("RGB", (len(cube) // 3, 1), cube)


def _unpacked(chunk: bytes) -> bytes:
    """The profile in an iCCP chunk; empty where it is damaged or too large."""
    unpacking = zlib.decompressobj()
    try:
        profile = unpacking.decompress(chunk.partition(b"\0")[2][1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return b""
    return b"" if unpacking.unconsumed_tail else profile


def _from_code(primaries: int, transfer: int, matrix: int, full_range: int) -> ColourSpace:
    """The colour space of a cICP chunk.

    Raises:
        UnreadableFileError: It is of high dynamic range, or one that is not converted.
    """
    if transfer in _HIGH_DYNAMIC_RANGE:
        raise UnreadableFileError(
            f"is of high dynamic range ({_HIGH_DYNAMIC_RANGE[transfer]}), which is not converted; export it as sRGB"
        )
    known = primaries in _PRIMARIES and transfer in _TRANSFERS and matrix == 0 and full_range == 1
    profile = known and _matrix_profile(_PRIMARIES[primaries][1], _TRANSFERS[transfer][1])
    if not profile:
        code = f"cICP {primaries}, {transfer}, {matrix}, {full_range}"
        raise UnreadableFileError(f"has colours of a kind that is not converted ({code}); export it as sRGB")
    return ColourSpace(profile, f"{_PRIMARIES[primaries][0]}, {_TRANSFERS[transfer][0]} (cICP)")


def _matrix_profile(chromaticities: _Chromaticities, curve: _Curve) -> bytes | None:
    """An ICC profile (version 2) of RGB with these chromaticities and this curve; None where they span no colours.

    Args:
        curve: From a stored value to light, both 0 to 1.
    """
    points = np.array(chromaticities).reshape(4, 2)
    if points[:, 1].min() <= 0:
        return None
    red_green_blue_white = np.stack([points[:, 0], points[:, 1], 1 - points.sum(axis=1)]) / points[:, 1]
    primaries, white = red_green_blue_white[:, :3], red_green_blue_white[:, 3]
    if abs(np.linalg.det(primaries)) < 1e-6:
        return None
    cone = _BRADFORD @ white
    if abs(cone).min() < 1e-6:
        return None
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(_BRADFORD @ np.array(_D50) / cone) @ _BRADFORD
    columns = adaptation @ (primaries * np.linalg.solve(primaries, white))
    if not abs(columns).max() < 2:
        return None
    values = np.rint(np.clip(curve(np.linspace(0, 1, _CURVE_POINTS)), 0, 1) * 65535).astype(">u2")
    curve_tag = b"curv" + struct.pack(">II", 0, _CURVE_POINTS) + values.tobytes()
    tags = {b"wtpt": _xyz(_D50)}
    for index, letter in enumerate((b"r", b"g", b"b")):
        tags |= {letter + b"XYZ": _xyz(columns[:, index]), letter + b"TRC": curve_tag}
    return _profile(tags)


def _xyz(values: npt.ArrayLike) -> bytes:
    return b"XYZ " + struct.pack(">I3i", 0, *np.rint(np.asarray(values) * 65536).astype(int).tolist())


def _profile(tags: Mapping[bytes, bytes]) -> bytes:
    """A display profile of these tags (ICC.1:2001-04, section 6)."""
    offset, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    header = struct.pack(">I4xI", offset + len(body), 0x02400000) + b"mntrRGB XYZ " + bytes(12) + b"acsp"
    header += bytes(28) + _xyz(_D50)[8:]
    return header.ljust(128, b"\0") + table + body
