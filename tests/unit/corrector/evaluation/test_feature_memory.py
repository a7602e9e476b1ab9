"""No network sees an image twice: not at the next look, not in the scoring process, not for the prompt's next version."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from corrector.base import ContentCache
from corrector.evaluation import FeatureMemory
from corrector.evaluation.features import opennsfw
from tests.support.scenes import FAILING, pictures
from tests.unit.corrector.evaluation.compared import Colours


class BrightImages:
    """A judge that calls bright images right; `asked` are the prompts of the images that it was shown."""

    name = "brightness"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Sequence[bool]:
        self.asked += prompts
        return (images.mean((1, 2, 3)) > 0.5).tolist()


def shades(count: int, size: int = 4) -> Tensor:
    """Images from dark to bright."""
    return torch.linspace(0, 1, count)[:, None, None, None].expand(count, 3, size, size)


def test_features_are_those_of_the_extractor_in_the_order_of_the_images() -> None:
    colours, images = Colours(), shades(5)
    memory = FeatureMemory([colours])

    for order in ([0, 1, 2], [4, 2, 0, 3, 1], [3, 3, 0]):
        assert torch.equal(memory.features("colours", images[order]), Colours()(images[order]))

    assert colours.seen == 5
    assert memory.extractors == ("colours",)
    assert memory.features("colours", images[:0]).shape == (0, 12)


def test_images_that_differ_by_one_step_of_eight_bits_or_in_shape_are_others() -> None:
    colours = Colours()
    memory = FeatureMemory([colours])
    images = torch.full((3, 3, 4, 4), 0.4)
    images[1] += 0.1 / 255
    images[2, 0, 0, 0] += 1 / 255

    memory.features("colours", images)
    assert colours.seen == 2
    memory.features("colours", images[:1].reshape(1, 3, 2, 8))
    assert colours.seen == 3


def test_a_saved_memory_is_loaded_in_another_process(tmp_path: Path) -> None:
    first, second, images = Colours(), Colours(), shades(4)
    memory, other = FeatureMemory([first], judge=BrightImages()), FeatureMemory([second])
    found = memory.features("colours", images)
    memory.right(images, ["a dog"] * 4)

    memory.save(tmp_path / "features.safetensors")
    other.load(tmp_path / "features.safetensors")

    assert torch.equal(other.features("colours", images.flip(0)), found.flip(0))
    assert second.seen == 0
    other.features("colours", 1 - shades(5))
    assert second.seen == 3, "black and white are known"


def test_what_is_kept_is_recalled_by_a_memory_with_the_same_cache(tmp_path: Path) -> None:
    first, second, images = Colours(), Colours(), shades(4)
    memory = FeatureMemory([first], cache=ContentCache(tmp_path))
    other = FeatureMemory([second], cache=ContentCache(tmp_path))
    found = memory.features("colours", images)
    memory.keep(images[:3])

    other.recall(images[:3])

    assert torch.equal(other.features("colours", images), found)
    assert second.seen == 1, "the fourth was not kept"
    assert len(list(tmp_path.rglob("*.tensors"))) == 1


def test_what_is_learnt_later_is_kept_besides(tmp_path: Path) -> None:
    images, prompts = shades(4), ["a dog", "a cat"] * 2
    memory = FeatureMemory([Colours()], cache=ContentCache(tmp_path))
    memory.features("colours", images)
    memory.keep(images)
    judged = FeatureMemory([Colours()], judge=BrightImages(), cache=ContentCache(tmp_path))
    judged.recall(images)
    judged.right(images, prompts)
    judged.keep(images)

    judge, colours = BrightImages(), Colours()
    last = FeatureMemory([colours], judge=judge, cache=ContentCache(tmp_path))
    last.recall(images)
    last.features("colours", images)

    assert last.right(images, prompts) == (False, False, True, True)
    assert (colours.seen, judge.asked) == (0, [])


def test_a_damaged_entry_is_computed_again(tmp_path: Path) -> None:
    colours, images = Colours(), shades(2)
    memory = FeatureMemory([Colours()], cache=ContentCache(tmp_path))
    found = memory.features("colours", images)
    memory.keep(images)
    path = next(tmp_path.rglob("*.tensors"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    again = FeatureMemory([colours], cache=ContentCache(tmp_path))
    again.recall(images)

    assert torch.equal(again.features("colours", images), found)
    assert colours.seen == 2


def test_without_a_cache_nothing_is_kept() -> None:
    colours, images = Colours(), shades(2)
    memory = FeatureMemory([colours])

    memory.recall(images)
    memory.features("colours", images)
    memory.keep(images)

    assert colours.seen == 2


def test_a_judge_is_asked_once_for_each_image_and_prompt(tmp_path: Path) -> None:
    judge, again = BrightImages(), BrightImages()
    memory, images = FeatureMemory([Colours()], judge=judge), shades(4)
    prompts = ["a dog", "a cat", "a dog", "a cat"]

    for _ in range(2):
        assert memory.right(images, prompts) == (False, False, True, True)
    assert sorted(judge.asked) == sorted(prompts)
    memory.right(images[:1], ["a cat"])
    assert len(judge.asked) == 5, "the first image was no picture of a cat before"

    memory.save(tmp_path / "verdicts.safetensors")
    other = FeatureMemory([Colours()], judge=again)
    other.load(tmp_path / "verdicts.safetensors")
    assert other.right(images, prompts) == (False, False, True, True)
    assert again.asked == []


def test_the_safety_score_comes_with_the_features_of_the_same_network() -> None:
    images = pictures(FAILING, [0, 1, 0])
    memory = FeatureMemory()

    features, unsafe = opennsfw().features_and_safety(images[:2])

    torch.testing.assert_close(memory.features("opennsfw", images), features[[0, 1, 0]])
    torch.testing.assert_close(memory.unsafe(images), unsafe[[0, 1, 0]])
    assert FeatureMemory([Colours()]).unsafe(images[:0]).shape == (0,)


def test_without_an_extractor_nothing_could_be_measured() -> None:
    with pytest.raises(ValueError, match="no feature extractor"):
        FeatureMemory([])
