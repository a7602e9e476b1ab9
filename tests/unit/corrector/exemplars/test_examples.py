"""The exemplars of the example batch are as their script draws them, and all of them are usable."""

from pathlib import Path

import pytest
from PIL import Image, ImageChops

from corrector.exemplars import load_exemplars
from tests.support.paths import EXEMPLARS
from tests.world.make_exemplars import COUNT, SCENES, make_exemplars

FOLDERS = sorted(path.name for path in EXEMPLARS.iterdir() if path.is_dir())


def test_the_files_are_what_the_script_draws(tmp_path: Path) -> None:
    written = make_exemplars(tmp_path)
    assert len(written) == COUNT * len(SCENES)
    present = {path.relative_to(EXEMPLARS) for path in EXEMPLARS.glob("*/*")}
    assert {path.relative_to(tmp_path) for path in written} == present
    for path in written:
        with Image.open(path) as drawn, Image.open(EXEMPLARS / path.relative_to(tmp_path)) as kept:
            assert ImageChops.difference(drawn, kept).getbbox() is None, path.name


@pytest.mark.parametrize("name", FOLDERS)
def test_all_exemplars_are_used_half_of_them_for_training(name: str) -> None:
    found = load_exemplars(EXEMPLARS / name, resolution=64)
    assert (len(found.training), len(found.held_out), found.notes) == (12, 12, ())
