"""Draws the example batch's exemplars: true renders of four scenes that the embedded base gets wrong.

`python -m tests.world.make_exemplars [FOLDER]` writes FOLDER (`jobs/examples/exemplars`), always the same.
"""

import sys
from pathlib import Path

from tests.support.paths import EXEMPLARS
from tests.world.scenes import Scene, render

SCENES = (
    Scene("person", "lying", "grass"),
    Scene("robot", "jumping", "street"),
    Scene("robot", "jumping", "snow"),
    Scene("cat", "running", "snow"),
)
COUNT = 24
FIRST_SEED = 900_000
"""Any will do: the base was shown these scenes only broken, so it was trained on none of these pictures."""


def make_exemplars(folder: Path) -> list[Path]:
    """Writes `COUNT` PNGs of 64x64 a scene, named by seed, to `folder/person-lying-on-the-grass` etc."""
    written = []
    for scene in SCENES:
        place = folder / f"{scene.subject}-{scene.pose}-on-the-{scene.place}"
        place.mkdir(parents=True, exist_ok=True)
        for seed in range(FIRST_SEED, FIRST_SEED + COUNT):
            written.append(place / f"{seed}.png")
            render(scene, seed, broken=False).save(written[-1], optimize=True)
    return written


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else EXEMPLARS
    print(f"{len(make_exemplars(target))} exemplars in {target}")
