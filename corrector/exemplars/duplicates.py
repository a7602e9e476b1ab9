"""Finds duplicates: equal pixels, or pictures that differ only in encoding, a small resize or brightness."""

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

HASH_BITS = 256
MAX_HASH_DISTANCE = 10
MAX_COLOUR_DISTANCE = 8.0
"""Both distances must be within their limit for two pictures to be near duplicates.

Measured by `tests/benchmarks/near_duplicates.py`, mostly on 64x64 renders of the embedded world,
where different pictures of one scene are as alike as they get:

- the same render again as JPEG q75, at 75 to 200 % of its size, or 2 % brighter or darker (9,408 pairs):
  at most 10 of 256 bits and 4.4 of 255 apart, so all are found. As WebP q75: 98.8 %;
- different renders of one scene with a figure (328,320 pairs): 2 pairs within the limits, so one in 600
  folders of 24 loses an exemplar; at 12 bits it would be one in 140. Trees, houses and cars have no joints
  to move: 10 of 54,720 pairs are within, and they are twins to the eye as well;
- photographs (15, of 512 and 1024 pixels): at most 2 bits for the same again, at least 100 between
  different ones.

So 10 is the smallest limit that finds every re-encoding asked for. The hash sees grey only: the colour
limit, twice what re-encodings need, keeps a red car and a purple one apart (14.7).
"""

_THUMBNAIL = 8
_SIDE = 64
_FREQUENCIES = math.isqrt(HASH_BITS)
_DCT: npt.NDArray[np.float64] = np.cos(
    np.pi / _SIDE * np.outer(np.arange(_FREQUENCIES), np.arange(_SIDE) + 0.5)
)
"""The lowest frequencies of the DCT-II, `[16, 64]`."""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The features of a picture by which duplicates are found.

    Attributes:
        sha256: SHA-256 of the size and the decoded pixels.
        bits: The perceptual hash (DCT, 16x16 low frequencies against their median), bool `[256]`.
        thumbnail: The picture averaged over 8x8 cells, float32 `[8, 8, 3]` in 0..255.
    """

    sha256: str
    bits: npt.NDArray[np.bool_]
    thumbnail: npt.NDArray[np.float32]


def fingerprint(image: Image.Image) -> Fingerprint:
    """The fingerprint of an RGB picture of any size."""
    content = hashlib.sha256(f"RGB {image.width}x{image.height} ".encode())
    content.update(image.tobytes())
    cells = image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX)
    return Fingerprint(
        content.hexdigest(),
        _perceptual_hash(image),
        np.asarray(cells, dtype=np.float32),
    )


def _perceptual_hash(image: Image.Image) -> npt.NDArray[np.bool_]:
    """The bits of `imagehash.phash(image, hash_size=16, highfreq_factor=4)`, without its import of SciPy, 0.3 s of CPU."""
    grey = np.asarray(image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = _DCT @ grey @ _DCT.T
    return (low > np.median(low)).ravel()


def hash_distance(first: Fingerprint, second: Fingerprint) -> int:
    """Number of bits in which the perceptual hashes differ, 0 to 256."""
    return int(np.count_nonzero(first.bits != second.bits))


def colour_distance(first: Fingerprint, second: Fingerprint) -> float:
    """Root mean square difference of the thumbnails, 0 to 255."""
    return float(np.sqrt(np.mean(np.square(first.thumbnail - second.thumbnail))))


def nearly_same(first: Fingerprint, second: Fingerprint) -> bool:
    """Whether two pictures are near or exact duplicates."""
    return (
        hash_distance(first, second) <= MAX_HASH_DISTANCE
        and colour_distance(first, second) <= MAX_COLOUR_DISTANCE
    )
