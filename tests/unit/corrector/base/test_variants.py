"""A pipeline that was saved with a variant, such as fp16, is read; what its files lack is known before anything loads."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from corrector.base import (
    check_component_files,
    check_transformer,
    find_base,
    load_text_encoders,
    load_transformer,
    load_vae,
    resolve_base,
)
from corrector.errors import UserError
from tests.support.hub_server import serving

PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["whole", "sharded"])
def half(request: pytest.FixtureRequest, small_sd3: Path, tmp_path: Path) -> Path:
    """The small base as `save_pretrained(…, variant="fp16")` writes it, and no other weights."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        small_sd3, local_files_only=True, torch_dtype=torch.float16
    )
    size = {"sharded": "30KB", "whole": "5GB"}[request.param]
    pipeline.save_pretrained(tmp_path / "half", variant="fp16", max_shard_size=size)
    shutil.copy(small_sd3 / "base.json", tmp_path / "half")
    found = [path.name for path in (tmp_path / "half").rglob("*.safetensors")]
    assert all(".fp16" in name for name in found)
    assert any("-of-" in name for name in found) == (request.param == "sharded")
    return tmp_path / "half"


def test_the_only_variant_is_read(half: Path, small_sd3: Path) -> None:
    spec, whole = resolve_base(str(half)), resolve_base(str(small_sd3))
    check_component_files(spec)
    check_transformer(spec)

    for load in (load_transformer, load_vae):
        expected = load(whole).state_dict()
        for name, weight in load(spec).state_dict().items():
            assert torch.equal(weight, expected[name].half().float())
    prompt = load_text_encoders(spec).encode(["a dog"]).prompt
    torch.testing.assert_close(prompt, load_text_encoders(whole).encode(["a dog"]).prompt, rtol=0, atol=0.05)


def test_a_base_on_the_hub_with_one_variant_only_is_fetched_in_it(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(half, monkeypatch, tmp_path / "hub") as hub:
        load_vae(resolve_base("someone/sd3"))
        served = [name for name in hub.served if name.endswith(".safetensors")]
    assert served and all(name.startswith("vae/") for name in served)


def test_a_variant_beside_other_weights_is_not_fetched_from_the_hub(
    small_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = Path(shutil.copytree(small_sd3, tmp_path / "both"))
    (both / "vae" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"not read")
    load_vae(resolve_base(str(both)))
    with serving(both, monkeypatch, tmp_path / "hub") as hub:
        load_vae(resolve_base("someone/sd3"))
    assert not [name for name in hub.served if ".fp16" in name]


def test_several_variants_and_no_other_weights_are_refused(small_sd3: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(small_sd3, tmp_path / "base"))
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.ema.safetensors"))
    weights.rename(weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    for refuse in (load_vae, check_component_files):
        with pytest.raises(
            UserError, match="several variants, ema and fp16, and none without; keep those of"
        ):
            refuse(find_base(str(folder)))


@pytest.mark.parametrize("part", PARTS)
def test_missing_and_damaged_weights_are_found_without_loading(
    small_sd3: Path, tmp_path: Path, part: str
) -> None:
    folder = Path(shutil.copytree(small_sd3, tmp_path / "base"))
    check_component_files(find_base(str(folder)))
    (path,) = (folder / part).glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=f"{part}/{path.name}: not a whole safetensors file"):
        check_component_files(find_base(str(folder)))
    path.unlink()
    with pytest.raises(UserError, match=f"{part}: has no weights"):
        check_component_files(find_base(str(folder)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_layers": 4}, "layers 3 instead of 4"),
        ({"pooled_projection_dim": 64}, "pooled width 28 instead of 64"),
        ({"pos_embed_max_size": None}, "position embeddings"),
    ],
)
def test_weights_of_another_configuration_are_found_without_loading(
    small_sd3: Path, tmp_path: Path, change: dict[str, object], message: str
) -> None:
    folder = Path(shutil.copytree(small_sd3, tmp_path / "base"))
    config = folder / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(UserError, match=message):
        check_component_files(find_base(str(folder)))


def test_a_base_is_checked_without_pytorch_and_without_its_weights_being_read(
    small_sd3: Path, tmp_path: Path
) -> None:
    transformer = small_sd3 / "transformer" / "diffusion_pytorch_model.safetensors"
    file = shutil.copy(transformer, tmp_path / "one.safetensors")
    program = (
        "import sys; from corrector.base import check_component_files, find_base;"
        f"check_component_files(find_base({str(small_sd3)!r}));"
        f"check_component_files(find_base({f'{file}#{small_sd3}'!r}));"
        "slow = {'torch', 'boto3', 'diffusers', 'huggingface_hub', 'transformers'};"
        "print(sorted(slow & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
    assert not (tmp_path / "cache").exists()
