"""Regenerates the figures at `corrector.exemplars.duplicates.MAX_HASH_DISTANCE`.

`python -m tests.benchmarks.near_duplicates [RENDERS_PER_SCENE]` (96: twenty seconds on an idle core).
"""

import io
import sys
from collections.abc import Callable, Iterable
from itertools import combinations

import numpy as np
from PIL import Image, ImageEnhance

from corrector.exemplars.duplicates import (
    MAX_COLOUR_DISTANCE,
    MAX_HASH_DISTANCE,
    Fingerprint,
    colour_distance,
    fingerprint,
    hash_distance,
)
from tests.support.pictures import paper_pictures
from tests.world.scenes import POSES, Scene, render, scenes

FIRST_SEED = 900_000


def encoded(image: Image.Image, kind: str, quality: int = 75) -> Image.Image:
    """The image after a lossy encoder."""
    stream = io.BytesIO()
    image.save(stream, kind, quality=quality)
    with Image.open(stream) as decoded:
        return decoded.convert("RGB")


def resized(image: Image.Image, factor: float) -> Image.Image:
    """The image at another size."""
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS)


def brighter(image: Image.Image, factor: float) -> Image.Image:
    """The image with its values multiplied."""
    return ImageEnhance.Brightness(image).enhance(factor)


REWORKINGS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG q75": lambda image: encoded(image, "JPEG"),
    "75 % size": lambda image: resized(image, 0.75),
    "94 % size": lambda image: resized(image, 60 / 64),
    "112 % size": lambda image: resized(image, 1.125),
    "200 % size": lambda image: resized(image, 2.0),
    "+2 % bright": lambda image: brighter(image, 1.02),
    "-2 % bright": lambda image: brighter(image, 0.98),
}
"""What must be recognised as the same picture."""

HARDER: dict[str, Callable[[Image.Image], Image.Image]] = {
    "WebP q75": lambda image: encoded(image, "WEBP"),
    "88 % size, brighter, JPEG": lambda image: encoded(brighter(resized(image, 0.875), 1.02), "JPEG"),
}
"""What is recognised nearly always."""


def distances(pairs: Iterable[tuple[Fingerprint, Fingerprint]]) -> tuple[np.ndarray, np.ndarray]:
    """Hash distances and colour distances of pairs."""
    values = [(hash_distance(a, b), colour_distance(a, b)) for a, b in pairs]
    return np.array([bits for bits, _ in values]), np.array([colour for _, colour in values])


def _report(title: str, bits: np.ndarray, colours: np.ndarray) -> None:
    near = int(((bits <= MAX_HASH_DISTANCE) & (colours <= MAX_COLOUR_DISTANCE)).sum())
    histogram = {
        int(value): int(count) for value, count in zip(*np.unique(bits, return_counts=True), strict=True)
    }
    lowest = dict(list(histogram.items())[:8])
    print(
        f"{title:28} pairs {len(bits):7}  near {near:6} ({near / len(bits):9.4%})"
        f"  bits {bits.min()}..{bits.max()}  colours {colours.min():.1f}..{colours.max():.1f}"
        f"  lowest bits {lowest}"
    )


def _different(pictures: Iterable[Iterable[Image.Image]]) -> tuple[np.ndarray, np.ndarray]:
    found = [distances(combinations([fingerprint(image) for image in group], 2)) for group in pictures]
    return np.concatenate([bits for bits, _ in found]), np.concatenate([colours for _, colours in found])


def main(renders_per_scene: int) -> None:
    """Prints both distributions for renders and, where they are present, for the paper's pictures."""
    seeds = range(FIRST_SEED, FIRST_SEED + renders_per_scene)

    def of(wanted: Callable[[Scene], bool]) -> Iterable[Iterable[Image.Image]]:
        return ([render(scene, seed) for seed in seeds] for scene in scenes() if wanted(scene))

    print("different renders of one scene")
    _report("figures", *_different(of(lambda scene: scene.subject in POSES)))
    _report("trees, houses, cars", *_different(of(lambda scene: scene.subject not in POSES)))
    print("the same render again")
    originals = [render(scene, seed) for scene in scenes() for seed in list(seeds)[::6]]
    for title, rework in (REWORKINGS | HARDER).items():
        _report(title, *distances((fingerprint(image), fingerprint(rework(image))) for image in originals))
    photographs = paper_pictures()
    if photographs:
        print("photographs")
        _report("different", *_different([photographs]))
        for title, rework in (REWORKINGS | HARDER).items():
            _report(
                title, *distances((fingerprint(image), fingerprint(rework(image))) for image in photographs)
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 96)
