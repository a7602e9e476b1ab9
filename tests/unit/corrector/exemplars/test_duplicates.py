"""Near duplicates: different renders of one scene are not, the same picture re-encoded is."""

from collections.abc import Callable
from itertools import combinations

import imagehash
import pytest
from PIL import Image

from corrector.exemplars.duplicates import colour_distance, fingerprint, hash_distance, nearly_same
from tests.benchmarks.near_duplicates import HARDER, REWORKINGS
from tests.support.paths import PAPER
from tests.support.pictures import drawn, paper_pictures
from tests.world.scenes import BROKEN, Scene, render

SCENES = [Scene(*combination) for combination in sorted(BROKEN)]


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_twenty_renders_of_one_scene_are_twenty_pictures(scene: Scene) -> None:
    prints = [fingerprint(render(scene, seed)) for seed in range(20)]
    assert not [pair for pair in combinations(prints, 2) if nearly_same(*pair)]


@pytest.mark.parametrize("rework", REWORKINGS.values(), ids=REWORKINGS.keys())
def test_the_same_render_again_is_recognised(
    rework: Callable[[Image.Image], Image.Image],
) -> None:
    images = [render(scene, seed) for scene in SCENES for seed in range(4)]
    assert all(nearly_same(fingerprint(image), fingerprint(rework(image))) for image in images)


@pytest.mark.parametrize("scene", SCENES, ids=str)
def test_the_perceptual_hash_is_that_of_imagehash(scene: Scene) -> None:
    image = render(scene, 0)
    expected = imagehash.phash(image, hash_size=16, highfreq_factor=4).hash.ravel()
    assert fingerprint(image).bits.tolist() == expected.tolist()


def test_a_photograph_again_is_recognised_and_another_is_not() -> None:
    photographs = paper_pictures()
    if not photographs:
        pytest.skip(f"the paper's images are not at {PAPER} (set CORRECTOR_PAPER_IMAGES)")
    prints = [fingerprint(image) for image in photographs]
    assert min(hash_distance(*pair) for pair in combinations(prints, 2)) > 90
    for rework in (REWORKINGS | HARDER).values():
        again = fingerprint(rework(photographs[0]))
        assert hash_distance(prints[0], again) <= 4
        assert nearly_same(prints[0], again)


def test_colour_alone_makes_another_picture() -> None:
    red, green, blue = drawn().split()
    first, second = fingerprint(drawn()), fingerprint(Image.merge("RGB", (green, blue, red)))
    assert colour_distance(first, second) > 20
    assert not nearly_same(first, second)


def test_the_digest_is_that_of_the_pixels_and_the_size() -> None:
    assert fingerprint(drawn()).sha256 == fingerprint(drawn().copy()).sha256
    assert fingerprint(drawn(96, 64)).sha256 != fingerprint(drawn(64, 96)).sha256
    flat = Image.new("RGB", (4, 2))
    assert fingerprint(flat).sha256 != fingerprint(flat.resize((2, 4))).sha256
