"""Every image of a folder gets a verdict with its reasons, and so does the set."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from corrector.evaluation import FeatureMemory
from corrector.exemplars.curation import Curation, Decision, Decisions, curate_folder
from corrector.exemplars.curation.checks import image_reasons
from tests.support.paths import EXEMPLARS
from tests.world.scenes import Scene, render

LYING = Scene("person", "lying", "grass")
GOOD = [render(LYING, seed) for seed in range(12)]


class Strict:
    """A judge to whom only images with a bright first pixel are right."""

    name = "strict"

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Sequence[bool]:
        return [bool(image[:, 0, 0].mean() > 0.9) for image in images]


def curate(
    folder: Path,
    images: dict[str, Image.Image],
    *,
    memory: FeatureMemory | None = None,
    prompt: str | None = None,
    decisions: Decisions | None = None,
) -> Curation:
    for name, image in images.items():
        image.save(folder / name, quality=75)
    memory = memory or FeatureMemory()
    return curate_folder(folder, resolution=64, memory=memory, prompt=prompt, decisions=decisions)


def good(count: int = 12) -> dict[str, Image.Image]:
    return {f"good-{number:02}.png": image for number, image in enumerate(GOOD[:count])}


def test_each_fault_is_named_and_good_images_are_effective(tmp_path: Path) -> None:
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    (tmp_path / "notes.txt").write_text("not an image")
    faulty = {
        "blurred.png": render(LYING, 50).filter(ImageFilter.GaussianBlur(1.5)),
        "broken.png": render(LYING, 51, broken=True),
        "copy.jpg": GOOD[0].resize((48, 48)),
        "elsewhere.png": render(Scene("person", "lying", "snow"), 52),
        "small.png": render(LYING, 53, size=32),
    }
    found = curate(tmp_path, good() | faulty)
    named = {each.name: {reason.check for reason in each.reasons} for each in found.images}
    assert "sharpness" in named["blurred.png"]
    assert "agreement" in named["broken.png"]
    assert named["copy.jpg"] == {"duplicate"}
    assert named["cut.png"] == {"decoding"}
    assert "agreement" in named["elsewhere.png"]
    assert "size" in named["small.png"]
    assert all(each.grade == "not effective" for each in found.images if not each.name.startswith("good"))
    assert [each.grade for each in found.images if each.name.startswith("good")].count("not effective") == 0
    assert found.grade == "not effective"
    assert "4 of 16 different images are not effective" in str(found.reasons)


def test_a_white_image_is_doubtful_or_worse() -> None:
    images = torch.full((2, 3, 64, 64), 0.5)
    images[0, :, :40] = 1.0
    images[1, :, :] = 0.0
    images[1, :, 0] = 0.5
    grades = [
        {reason.check: reason.grade for reason in reasons}["exposure"]
        for reasons in image_reasons(images, FeatureMemory(), None)
    ]
    assert grades == ["doubtful", "not effective"]


def test_few_images_cannot_teach_variety_and_agreement_is_not_run(tmp_path: Path) -> None:
    found = curate(tmp_path, good(4))
    assert found.grade == "doubtful"
    assert {reason.check for reason in found.reasons} == {"number", "diversity"}
    lacks = " ".join(found.lacks)
    assert "Variety" in lacks
    assert "one of each" in lacks
    assert "Not run, for want of a judge" in lacks
    assert "Not run, with fewer than 8 images" in lacks


def test_images_that_differ_are_not_said_to_differ_in_pose(tmp_path: Path) -> None:
    scenes = [
        Scene(subject, "standing", place)
        for subject in ("person", "dog")
        for place in ("grass", "street", "snow")
    ]
    found = curate(tmp_path, {f"{number}.png": render(scene, number) for number, scene in enumerate(scenes)})
    assert "diversity" not in {reason.check for reason in found.reasons}
    assert "Which of subject, pose, view and background vary: no check sees it" in " ".join(found.lacks)


def test_too_few_images_are_not_effective(tmp_path: Path) -> None:
    assert curate(tmp_path, good(3)).grade == "not effective"
    for path in tmp_path.iterdir():
        path.unlink()
    assert curate(tmp_path, {}).grade == "not effective"


def test_a_judge_names_the_images_that_show_the_anomaly(tmp_path: Path) -> None:
    images = good(4)
    images["good-01.png"] = GOOD[1].copy()
    for name, image in images.items():
        images[name] = image.copy()
        images[name].putpixel((0, 0), (0, 0, 0) if name == "good-01.png" else (255, 255, 255))
    found = curate(tmp_path, images, memory=FeatureMemory(judge=Strict()), prompt="a person lying")
    judged = [each.name for each in found.images if any(reason.check == "prompt" for reason in each.reasons)]
    assert judged == ["good-01.png"]
    assert found.images[1].grade == "doubtful"
    assert "anomaly" in {reason.check for reason in found.reasons}
    assert "Not run, for want of a judge" not in " ".join(found.lacks)


def test_people_overrule_the_verdicts(tmp_path: Path) -> None:
    first = curate(tmp_path, good(5) | {"small.png": render(LYING, 53, size=32)})
    digests = {each.name: each.sha256 for each in first.images}
    assert first.grade == "not effective"
    small, other = str(digests["small.png"]), str(digests["good-00.png"])
    decisions = Decisions(
        decisions={
            small: Decision(decision="keep", by="Ana"),
            other: Decision(decision="drop", by="Ana", why="three legs"),
        }
    )
    second = curate(tmp_path, {}, decisions=decisions)
    assert second.grade == "doubtful"
    assert "small.png" in {each.name for each in second.used}
    assert "good-00.png" not in {each.name for each in second.used}
    assert second.decided() == decisions
    assert first.decided().dropped[small].startswith("by curation: size: is 32x32")


@pytest.mark.parametrize("folder", sorted(EXEMPLARS.iterdir()), ids=lambda folder: folder.name)
def test_the_example_batch_passes(folder: Path) -> None:
    found = curate_folder(folder, resolution=64, memory=FeatureMemory())
    assert found.grade == "doubtful"
    assert [reason.check for reason in found.reasons] == ["diversity"]
