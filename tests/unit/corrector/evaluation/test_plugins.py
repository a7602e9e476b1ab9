"""Vision models of users' own plug in as extractors."""

from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel, Dinov2Config, Dinov2Model

from corrector.errors import UserError
from corrector.evaluation import VisionModelFeatures
from corrector.evaluation.plugins import not_run_beside

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("vision")
    torch.manual_seed(0)
    CLIPVisionModel(CLIPVisionConfig(**SMALL, intermediate_size=64)).save_pretrained(root / "clip")
    Dinov2Model(Dinov2Config(**SMALL)).save_pretrained(root / "dinov2")
    return {name: root / name for name in ("clip", "dinov2")}


@pytest.mark.parametrize("name", ["clip", "dinov2"])
def test_a_folder_of_weights_becomes_an_extractor(folders: dict[str, Path], name: str) -> None:
    extractor = VisionModelFeatures(name, folders[name])
    images = torch.rand((9, 3, 64, 64), generator=torch.Generator().manual_seed(0))

    features = extractor(images)

    assert features.shape == (9, extractor.dimensions) == (9, 32)
    assert features.dtype == torch.float32
    assert torch.equal(features, extractor(images))
    assert float(features.std(0).mean()) > 1e-4, "different images have different features"


def test_a_metric_that_was_run_is_not_reported_as_left_out(folders: dict[str, Path]) -> None:
    left_out = {missing.name for missing in not_run_beside([VisionModelFeatures("clip", folders["clip"])])}

    assert "fid_clip" not in left_out
    assert {"fid_inception", "fid_dinov2", "PickScore"} <= left_out


def test_a_folder_without_a_vision_model_is_named(tmp_path: Path, folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="no vision model"):
        VisionModelFeatures("clip", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(UserError, match="type 'gpt2'; expected clip_vision_model or dinov2"):
        VisionModelFeatures("clip", tmp_path)
    (tmp_path / "config.json").write_bytes((folders["clip"] / "config.json").read_bytes())
    with pytest.raises(UserError, match="its weights cannot be read"):
        VisionModelFeatures("clip", tmp_path)
