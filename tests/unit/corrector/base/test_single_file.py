"""A checkpoint in one file is the base that it was made from, or is refused with what it is instead."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from corrector.base import load_scheduler, load_text_encoders, load_transformer, load_vae, resolve_base
from corrector.errors import UserError
from tests.support.original_layout import changed, write, write_single_file
from tests.support.sd3_family import MODELS, Model, configuration
from tests.support.small_sd3 import Variant, transformer_inputs, write_small_sd3


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "cache"))


def assert_equal_transformers(one: str, other: str) -> None:
    """The same weights to the bit, and predictions up to what memory alignment changes in a product's rounding."""
    first, second = (load_transformer(resolve_base(each)) for each in (one, other))
    weights = second.state_dict()
    assert first.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in first.state_dict().items())
    with torch.no_grad():
        predictions = [each(**transformer_inputs(2)).sample for each in (first, second)]
    torch.testing.assert_close(*predictions, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ["sd3", "sd35"])
@pytest.mark.parametrize("prefix", [True, False])
def test_stability_s_layout_predicts_what_the_folder_predicts(
    variant: Variant, prefix: bool, small_sd3: Path, small_sd35: Path, tmp_path: Path
) -> None:
    folder = small_sd3 if variant == "sd3" else small_sd35
    file = write_single_file(folder, tmp_path / "one.safetensors", prefix=prefix)
    assert_equal_transformers(f"{file}#{folder}", str(folder))


def test_a_bare_transformer_of_diffusers_is_a_checkpoint_too(small_sd35: Path, tmp_path: Path) -> None:
    file = shutil.copy(
        small_sd35 / "transformer/diffusion_pytorch_model.safetensors", tmp_path / "t.safetensors"
    )
    assert_equal_transformers(f"{file}#{small_sd35}", str(small_sd35))


def test_the_file_s_vae_is_used_and_all_else_is_the_pipeline_s(small_sd3: Path, tmp_path: Path) -> None:
    other = write_small_sd3(tmp_path / "other", seed=1)
    file = write_single_file(small_sd3, tmp_path / "one.safetensors", vae=True)
    spec, pipeline = resolve_base(f"{file}#{other}"), resolve_base(str(other))
    expected = load_vae(resolve_base(str(small_sd3))).state_dict()
    found = load_vae(spec).state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert (spec.name, spec.resolution, spec.num_inference_steps) == ("one", 16, 4)
    assert load_scheduler(spec).config == load_scheduler(pipeline).config
    prompt = ["a dog on the road"]
    texts = [load_text_encoders(each).encode(prompt).prompt for each in (spec, pipeline)]
    torch.testing.assert_close(*texts, rtol=1e-5, atol=1e-5)


def test_without_a_vae_in_the_file_the_pipeline_s_is_used(small_sd3: Path, tmp_path: Path) -> None:
    file = write_single_file(small_sd3, tmp_path / "one.safetensors")
    expected = load_vae(resolve_base(str(small_sd3))).state_dict()
    found = load_vae(resolve_base(f"{file}#{small_sd3}")).state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_the_revision_follows_the_file_and_the_pipeline(small_sd3: Path, tmp_path: Path) -> None:
    file = write_single_file(small_sd3, tmp_path / "one.safetensors")
    other = write_small_sd3(tmp_path / "other", seed=1)
    first = resolve_base(f"{file}#{small_sd3}").revision
    assert resolve_base(f"{shutil.copy(file, tmp_path / 'copy.safetensors')}#{small_sd3}").revision == first
    assert resolve_base(f"{file}#{other}").revision != first
    changed(file, {"model.diffusion_model.final_layer.linear.bias": torch.ones(16)})
    assert resolve_base(f"{file}#{small_sd3}").revision != first


@pytest.mark.parametrize("model", MODELS)
def test_a_published_size_needs_no_pipeline_named(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    config = configuration(model)
    width, joint = config["num_attention_heads"] * 64, "model.diffusion_model.joint_blocks"
    weights = {
        "model.diffusion_model.pos_embed": torch.zeros(1, 4, width),
        "model.diffusion_model.x_embedder.proj.weight": torch.zeros(width, 16, 2, 2),
        "model.diffusion_model.context_embedder.weight": torch.zeros(width, 4096),
        "model.diffusion_model.y_embedder.mlp.0.weight": torch.zeros(width, 2048),
    }
    for layer in range(config["num_layers"]):
        weights[f"{joint}.{layer}.x_block.attn.qkv.bias"] = torch.zeros(1)
        if config.get("qk_norm"):
            weights[f"{joint}.{layer}.x_block.attn.ln_q.weight"] = torch.zeros(1)
        if layer in config.get("dual_attention_layers", ()):
            weights[f"{joint}.{layer}.x_block.attn2.qkv.bias"] = torch.zeros(1)
    expected = {
        "sd3-medium": "stabilityai/stable-diffusion-3-medium-diffusers",
        "sd3.5-medium": "stabilityai/stable-diffusion-3.5-medium",
        "sd3.5-large": "stabilityai/stable-diffusion-3.5-large",
    }[model]
    with pytest.raises(UserError, match=f'base "{expected}": .*its local cache'):
        resolve_base(str(write(tmp_path / "one.safetensors", weights)))


def test_other_sizes_need_a_pipeline_and_one_that_fits(
    small_sd3: Path, small_sd35: Path, tmp_path: Path
) -> None:
    file = write_single_file(small_sd35, tmp_path / "one.safetensors")
    for reference in (f"{file}", f"{file}#"):
        with pytest.raises(
            UserError, match=r"no published pipeline has 3 layers of width 32, 2 with dual .*#PIPE"
        ):
            resolve_base(reference)
    with pytest.raises(
        UserError, match=r"dual attention layers \(0, 1\) instead of \(\); qk norm True instead of False"
    ):
        resolve_base(f"{file}#{small_sd3}")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("conditioner.embedders.1.model.positional_embedding", "Stable Diffusion XL"),
        ("model.diffusion_model.label_emb.0.0.weight", "Stable Diffusion XL"),
        ("cond_stage_model.transformer.text_model.embeddings.position_ids", "Stable Diffusion 1 or 2"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("single_transformer_blocks.0.attn.to_q.weight", "Flux"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "a LoRA adapter, not a base"),
        ("text_model.encoder.layers.0.mlp.fc1.weight", "a text encoder"),
        ("decoder.conv_in.weight", "a VAE"),
        ("weight", "unknown"),
    ],
)
def test_another_architecture_is_named_and_refused(name: str, kind: str, tmp_path: Path) -> None:
    file = write(tmp_path / "one.safetensors", {name: torch.zeros(2, 2)})
    with pytest.raises(UserError, match=f"is {kind}; only transformers of Stable Diffusion 3 and 3.5"):
        resolve_base(f"{file}#embedded")


@pytest.mark.parametrize("suffix", [".ckpt", ".bin", ".pt", ".pth"])
def test_a_pickle_is_refused_by_its_name(suffix: str, tmp_path: Path) -> None:
    torch.save({}, tmp_path / f"model{suffix}")
    with pytest.raises(UserError, match="a pickle can run any code"):
        resolve_base(f"{tmp_path / 'model'}{suffix}#embedded")


def test_a_file_that_is_cut_off_or_not_there_is_refused(small_sd3: Path, tmp_path: Path) -> None:
    file = write_single_file(small_sd3, tmp_path / "one.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"one\.safetensors: not a whole safetensors file"):
        resolve_base(f"{file}#{small_sd3}")
    file.write_bytes(b"<html>")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        resolve_base(f"{file}#{small_sd3}")
    with pytest.raises(UserError, match="there is no file"):
        resolve_base(f"{tmp_path / 'none.safetensors'}#{small_sd3}")


def test_tensors_that_lack_or_do_not_belong_are_named(small_sd3: Path, tmp_path: Path) -> None:
    joint = "model.diffusion_model.joint_blocks.1.x_block"
    file = write_single_file(small_sd3, tmp_path / "one.safetensors", vae=True)
    whole = load_file(file)

    def refusal(changes: dict[str, torch.Tensor | None]) -> str:
        write(file, whole)
        spec = resolve_base(f"{changed(file, changes)}#{small_sd3}")
        with pytest.raises(UserError) as caught:
            (load_vae if any(name.startswith("first") for name in changes) else load_transformer)(spec)
        return str(caught.value)

    assert "joint_blocks.1.x_block.mlp.fc1.weight" in refusal({f"{joint}.mlp.fc1.weight": None})
    assert "transformer_blocks.1.ff.net.2.weight has the shape [3, 3]" in refusal(
        {f"{joint}.mlp.fc2.weight": torch.zeros(3, 3)}
    )
    assert "scaled fp8 weights is not supported" in refusal({f"{joint}.mlp.fc1.scale_weight": torch.zeros(1)})
    assert "lacks 1 weights of a AutoencoderKL, decoder.conv_in.bias" in refusal(
        {"first_stage_model.decoder.conv_in.bias": None}
    )
    broken = whole[f"{joint}.mlp.fc1.weight"].clone()
    broken[3, 5] = torch.inf
    assert "transformer_blocks.1.ff.net.0.proj.weight in " in refusal({f"{joint}.mlp.fc1.weight": broken})
