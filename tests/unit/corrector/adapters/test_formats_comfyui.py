"""Files for ComfyUI and kohya's sd-scripts: the names are the published ones, and they change SD3's original layout as
the adapter changes diffusers'.

What ComfyUI does with a file is in its ``comfy/lora.py`` (``model_lora_keys_unet``, ``load_lora``) and
``comfy/weight_adapter/lora.py`` (``calculate_weight``): a weight ``diffusion_model.<name>.weight`` of the model takes
``alpha / rank * up @ down`` of the keys ``lora_unet_<name with underscores>.lora_up.weight`` and so on. kohya's
``networks/lora_sd3.py`` names the same layers in the same way. The original layout becomes diffusers' here by diffusers'
own converter, so nothing of ours stands on both sides of a comparison.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from corrector.adapters import Adapter, AdapterBank, AdapterError, export_adapter, load_adapter
from tests.support.kohya_files import WIDTH, original_linears, trained_by_kohya
from tests.support.small_banks import SD35_TARGETS, adapter_of, distance, predict
from tests.support.small_sd3 import Variant, small_transformer, transformer_inputs


def original_checkpoint(variant: Variant) -> dict[str, Tensor]:
    """Random weights of the small transformer in the layout of Stability's release, as ComfyUI loads it."""
    generator = torch.Generator().manual_seed(5)
    weights = {"pos_embed": torch.randn(1, 64, WIDTH, generator=generator)}
    weights["x_embedder.proj.weight"] = torch.randn(WIDTH, 4, 2, 2, generator=generator) * 0.3
    weights["x_embedder.proj.bias"] = torch.zeros(WIDTH)
    for name, shape in original_linears(variant).items():
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) * shape[1] ** -0.5
        weights[f"{name}.bias"] = torch.randn(shape[0], generator=generator) * 0.1
        if variant == "sd35" and name.endswith("qkv"):
            for norm in ("ln_q", "ln_k"):
                weights[f"{name.removesuffix('qkv')}{norm}.weight"] = torch.ones(16)
    return weights


def in_diffusers(checkpoint: dict[str, Tensor], variant: Variant) -> SD3Transformer2DModel:
    transformer = small_transformer(variant)
    transformer.load_state_dict(convert_sd3_transformer_checkpoint_to_diffusers(dict(checkpoint)))
    return transformer


def as_comfyui_patches(checkpoint: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    """The checkpoint with a file's LoRA merged by ComfyUI's rule; every key of the file must be one that it knows."""
    lora, patched = load_file(file), dict(checkpoint)
    for key in [key for key in checkpoint if key.endswith(".weight")]:
        name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
        up = lora.pop(f"{name}.lora_up.weight", None)
        if up is not None:
            down, alpha = lora.pop(f"{name}.lora_down.weight"), lora.pop(f"{name}.alpha").item()
            patched[key] = checkpoint[key] + (alpha / down.shape[0] * (up @ down)).reshape(
                checkpoint[key].shape
            )
    assert not lora
    return patched


def every_linear(transformer: SD3Transformer2DModel) -> tuple[str, ...]:
    return tuple(path for path, module in transformer.named_modules() if isinstance(module, nn.Linear))


def with_bank(transformer: SD3Transformer2DModel, adapter: Adapter, inputs: dict[str, Tensor]) -> Tensor:
    bank = AdapterBank(transformer, slots=1, rank=adapter.rank, targets=tuple(adapter.weights))
    bank.load(1, adapter)
    with torch.no_grad(), bank.rows([1] * len(inputs["timestep"])):
        prediction = predict(transformer, inputs)
    bank.remove()
    return prediction


def share_down(adapter: Adapter) -> Adapter:
    """q, k and v of a layer with one A, as in files that were trained on the fused layer."""
    weights = {}
    for path, (down, up) in adapter.weights.items():
        first = path.replace("to_k", "to_q").replace("to_v", "to_q")
        first = first.replace("add_k_proj", "add_q_proj").replace("add_v_proj", "add_q_proj")
        weights[path] = (adapter.weights.get(first, (down, up))[0], up)
    return Adapter(adapter.rank, adapter.alpha, weights)


def without_keys(adapter: Adapter) -> Adapter:
    return Adapter(
        adapter.rank,
        adapter.alpha,
        {path: pair for path, pair in adapter.weights.items() if "_k" not in path},
    )


@pytest.mark.parametrize("variant", ["sd3", "sd35"])
@pytest.mark.parametrize(
    "change", [None, share_down, without_keys], ids=["all", "one A for q, k and v", "no k"]
)
def test_comfyui_predicts_with_the_file_as_the_bank_does_with_the_adapter(
    tmp_path: Path, variant: Variant, change: Callable[[Adapter], Adapter] | None
) -> None:
    checkpoint = original_checkpoint(variant)
    transformer = in_diffusers(checkpoint, variant)
    adapter = adapter_of(transformer, every_linear(transformer))
    adapter = change(adapter) if change else adapter
    file = export_adapter(adapter, tmp_path / "lora.safetensors", "comfyui")
    inputs = transformer_inputs(2)
    with torch.no_grad():
        plain = predict(transformer, inputs)
        patched = predict(in_diffusers(as_comfyui_patches(checkpoint, file), variant), inputs)
    expected = with_bank(transformer, adapter, inputs)
    assert distance(patched, expected) < 1e-5
    assert distance(plain, expected) > 0.1


def test_the_names_are_those_of_kohya_and_comfyui(tmp_path: Path) -> None:
    """Names as kohya's ``LoRANetwork`` makes them: "lora_unet" and the module's path, joined by underscores."""
    file = export_adapter(
        adapter_of(small_transformer("sd35"), SD35_TARGETS), tmp_path / "lora.safetensors", "comfyui"
    )
    layers = {
        "lora_unet_joint_blocks_0_x_block_attn_qkv",
        "lora_unet_joint_blocks_0_x_block_attn_proj",
        "lora_unet_joint_blocks_0_x_block_attn2_qkv",
        "lora_unet_joint_blocks_0_x_block_attn2_proj",
        "lora_unet_joint_blocks_0_context_block_attn_qkv",
        "lora_unet_joint_blocks_0_context_block_attn_proj",
        "lora_unet_joint_blocks_1_x_block_attn_qkv",
        "lora_unet_joint_blocks_1_x_block_attn_proj",
        "lora_unet_joint_blocks_1_x_block_attn2_qkv",
        "lora_unet_joint_blocks_1_x_block_attn2_proj",
        "lora_unet_joint_blocks_1_context_block_attn_qkv",
        "lora_unet_joint_blocks_1_context_block_attn_proj",
        "lora_unet_joint_blocks_2_x_block_attn_qkv",
        "lora_unet_joint_blocks_2_x_block_attn_proj",
        "lora_unet_joint_blocks_2_context_block_attn_qkv",  # the last block's context has no proj
    }
    tensors = load_file(file)
    assert tensors.keys() == {
        f"{name}.{end}" for name in layers for end in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    fused, single = "lora_unet_joint_blocks_0_x_block_attn_qkv", "lora_unet_joint_blocks_0_x_block_attn_proj"
    assert tensors[f"{fused}.lora_down.weight"].shape == (12, WIDTH)
    assert tensors[f"{fused}.lora_up.weight"].shape == (3 * WIDTH, 12)
    assert [tensors[f"{name}.alpha"].item() for name in (fused, single)] == [12.0, 4.0]
    assert tensors[f"{single}.lora_down.weight"].shape == (4, WIDTH)


@pytest.mark.parametrize("variant", ["sd3", "sd35"])
@pytest.mark.parametrize("split_qkv", [False, True])
def test_a_file_of_kohya_does_here_what_it_does_in_comfyui(
    tmp_path: Path, variant: Variant, split_qkv: bool
) -> None:
    """With ``split_qkv`` kohya saves three ranks but one alpha: ComfyUI and kohya's own inference then apply a third of
    what was trained, and so does the bank."""
    file = tmp_path / "kohya.safetensors"
    save_file(trained_by_kohya(variant=variant, split_qkv=split_qkv), file)
    checkpoint, inputs = original_checkpoint(variant), transformer_inputs(2)
    adapter = load_adapter(file)
    assert adapter.rank == 6
    with torch.no_grad():
        expected = predict(in_diffusers(as_comfyui_patches(checkpoint, file), variant), inputs)
    assert distance(with_bank(in_diffusers(checkpoint, variant), adapter, inputs), expected) < 1e-5


def test_a_file_of_kohya_comes_back_with_the_same_numbers(tmp_path: Path) -> None:
    file, lora = tmp_path / "kohya.safetensors", trained_by_kohya(rank=6, alpha=6.0)
    save_file(lora, file)
    again = load_file(export_adapter(load_adapter(file), tmp_path / "again.safetensors", "comfyui"))
    assert again.keys() == lora.keys()
    assert all(torch.equal(again[key], lora[key]) for key in lora)


def test_an_adapter_that_has_no_name_there_is_not_written(tmp_path: Path) -> None:
    weights = {"blocks.0.to_q": (torch.zeros(2, 4), torch.zeros(4, 2))}
    with pytest.raises(AdapterError, match=r"blocks\.0\.to_q is no Linear of Stable Diffusion 3"):
        export_adapter(Adapter(2, 2.0, weights), tmp_path / "lora.safetensors", "comfyui")
    uneven = {
        f"transformer_blocks.0.attn.to_{name}": (torch.zeros(2, 4), torch.zeros(size, 2))
        for name, size in (("q", 4), ("k", 8))
    }
    with pytest.raises(AdapterError, match="have different sizes"):
        export_adapter(Adapter(2, 2.0, uneven), tmp_path / "lora.safetensors", "comfyui")
    assert not list(tmp_path.iterdir())
