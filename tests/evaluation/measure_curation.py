"""Measures how well curation finds bad images among exemplars, on rendered pictures of four scenes.

    python -m tests.evaluation.measure_curation [--sets 40] [--pool 40] [--only TEXT]

Each set has 24 images, 7 of them with the fault of its row, and goes through `curate_folder` as files. "Recall" is the share
of bad images, "precision" the share of bad images among those found, each with Wilson's 95 % interval, which takes images as
independent. In each row the first figure counts images that are "not effective", the second those that are "doubtful" too.
"Refused" is the share of sets that are "not effective". Thresholds were chosen on renders of four other scenes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import torch
from PIL import Image, ImageFilter
from torch import Tensor

from corrector.evaluation import FeatureMemory
from corrector.evaluation.verdicts import right_share
from corrector.exemplars import to_image, to_tensor
from corrector.exemplars.curation import Curation, curate_folder
from tests.evaluation.measure_protocol import JUDGE_ACCURACY, KnownJudge
from tests.evaluation.renders import SCENES
from tests.support.scenes import pictures
from tests.world.scenes import PLACES, POSES, Scene, canonical_prompt

IMAGES, BAD = 24, 7
BLUR = 1.0
"""Standard deviation of the blur in pixels."""
COPY_SIDE = 48
FAULTS = ("broken limbs", "wrong pose", "wrong place", "blur", "duplicates")


@dataclass(frozen=True)
class Row:
    """One row of the table: the faults among which each bad image's is drawn, and whether a judge is asked."""

    name: str
    faults: tuple[str, ...]
    judged: bool = False


ROWS = (
    Row("none", ()),
    *(Row(fault, (fault,)) for fault in FAULTS),
    Row("all five mixed", FAULTS),
    Row("none, judge", (), judged=True),
    *(Row(f"{fault}, judge", (fault,), judged=True) for fault in FAULTS[:3]),
    Row("all five mixed, judge", FAULTS, judged=True),
)


@cache
def _pool(scene: Scene, fault: str, size: int) -> Tensor:
    """Pictures `[size, 3, 64, 64]` with this fault; right ones for "" and for faults that are made of right ones."""
    if fault == "broken limbs":
        return pictures(scene, range(30_000, 30_000 + size), broken=True)
    if fault == "wrong pose":
        pose = next(pose for pose in POSES[scene.subject] if pose != scene.pose)
        return pictures(Scene(scene.subject, pose, scene.place), range(31_000, 31_000 + size))
    if fault == "wrong place":
        place = next(place for place in PLACES if place != scene.place)
        return pictures(Scene(scene.subject, scene.pose, place), range(32_000, 32_000 + size))
    if fault == "blur":
        sharp = pictures(scene, range(33_000, 33_000 + size))
        blurred = [to_image(image).filter(ImageFilter.GaussianBlur(BLUR)) for image in sharp]
        return torch.stack([to_tensor(image) for image in blurred])
    return pictures(scene, range(34_000, 34_000 + size))


def files_of(
    row: Row, scene: Scene, number: int, size: int
) -> tuple[dict[str, Image.Image], dict[str, bool]]:
    """The images of one set of `row` by their file's name, and whether each shows its scene rightly, copies included.

    The names of bad images start with "bad"; `number` decides everything random.
    """
    random = Random(f"{row.name}/{number}")
    bad = [random.choice(row.faults) for _ in range(BAD)] if row.faults else []
    good = _pool(scene, "", size)[random.sample(range(size), IMAGES - len(bad))]
    unused = {fault: random.sample(range(size), BAD) for fault in FAULTS}
    files: dict[str, Image.Image] = {f"{k:02}.png": to_image(image) for k, image in enumerate(good)}
    for k, fault in enumerate(bad):
        if fault == "duplicates":
            files[f"bad-{k}.jpg"] = to_image(good[k]).resize((COPY_SIDE, COPY_SIDE), Image.Resampling.LANCZOS)
        else:
            files[f"bad-{k}.png"] = to_image(_pool(scene, fault, size)[unused[fault].pop()])
    return files, {name: not name.startswith("bad") or bad[int(name[4])] in FAULTS[3:] for name in files}


def save(files: Mapping[str, Image.Image], folder: Path) -> None:
    """Write the images, JPEG where the name says so."""
    for name, image in files.items():
        image.save(folder / name, quality=75)


def curated(row: Row, number: int, size: int, memory: FeatureMemory) -> tuple[Curation, set[str]]:
    """The verdicts on one set of `row`, and the names of its bad images."""
    scene = SCENES[number % len(SCENES)]
    files, truth = files_of(row, scene, number, size)
    known = {to_tensor(image).numpy().tobytes(): truth[name] for name, image in files.items()}
    memory.judge = KnownJudge(known, f"{row.name}/{number}") if row.judged else None
    with tempfile.TemporaryDirectory() as folder:
        save(files, Path(folder))
        verdicts = curate_folder(Path(folder), resolution=64, memory=memory, prompt=canonical_prompt(scene))
    return verdicts, {name for name in files if name.startswith("bad")}


def _cell(hits: int, of: int) -> str:
    if not of:
        return "–"
    share = right_share([True] * hits + [False] * (of - hits))
    return f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"


def table_row(row: Row, sets: int, size: int, memory: FeatureMemory) -> str:
    """One line of the Markdown table."""
    found = [curated(row, number, size, memory) for number in range(sets)]
    cells, total = [], sum(len(bad) for _, bad in found)
    for least in (("not effective",), ("not effective", "doubtful")):
        named = [
            (each.name in bad) for verdicts, bad in found for each in verdicts.images if each.grade in least
        ]
        clean = sets * IMAGES - total
        cells.append(
            (_cell(sum(named), total), _cell(sum(named), len(named)), _cell(len(named) - sum(named), clean))
        )
    refused = sum(verdicts.grade == "not effective" for verdicts, _ in found)
    pairs = [f"{strict} | {loose}" for strict, loose in zip(*cells, strict=True)]
    return f"| {row.name} | {' | '.join(pairs)} | {refused / sets:.0%} |"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sets", type=int, default=40, help="sets of a row")
    parser.add_argument("--pool", type=int, default=40, help="pictures of each kind and scene")
    parser.add_argument("--only", default="", help="rows whose names hold this text")
    given = parser.parse_args(arguments)
    memory = FeatureMemory()
    print(
        f"{BAD} of {IMAGES} images bad; {given.sets} sets a row; the judge is right in {JUDGE_ACCURACY:.0%}\n\n"
        "| fault | recall | recall, doubtful too | precision | precision, doubtful too "
        "| good images lost | good images doubted or lost | refused |\n|---|---|---|---|---|---|---|---|"
    )
    for row in ROWS:
        if given.only in row.name:
            print(table_row(row, given.sets, given.pool, memory), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
