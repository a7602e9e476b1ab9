"""LoRA files of other programs: the spellings that ComfyUI knows are read, and wrong files are refused by file and key."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from corrector.adapters import Adapter, AdapterError, export_adapter, load_adapter
from tests.support.kohya_files import WIDTH, original_linears, trained_by_kohya
from tests.support.small_banks import SD35_TARGETS, adapter_of, distance
from tests.support.small_sd3 import small_transformer


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_as_it_is(tmp_path: Path, dtype: torch.dtype) -> None:
    file, lora = tmp_path / "half.safetensors", trained_by_kohya()
    save_file({key: value.to(dtype) for key, value in lora.items()}, file)
    adapter = load_adapter(file)
    up = lora["lora_unet_joint_blocks_1_x_block_attn_qkv.lora_up.weight"].to(dtype)
    down = lora["lora_unet_joint_blocks_1_x_block_attn_qkv.lora_down.weight"].to(dtype)
    for part, name in zip(up.chunk(3), ("to_q", "to_k", "to_v"), strict=True):
        found = adapter.weights[f"transformer_blocks.1.attn.{name}"]
        assert found[0].dtype == found[1].dtype == dtype
        assert torch.equal(found[0], down)
        assert torch.equal(found[1], part)


def test_layers_of_other_ranks_and_scales_do_what_they_did(tmp_path: Path) -> None:
    lora = trained_by_kohya(rank=6, alpha=3.0)
    smaller = trained_by_kohya(rank=2, alpha=5.0)
    lora |= {key: value for key, value in smaller.items() if "_mlp_fc1." in key}
    file = tmp_path / "mixed.safetensors"
    save_file(lora, file)
    adapter = load_adapter(file)
    assert (adapter.rank, adapter.alpha) == (6, 3.0)
    for block, name, path in ((0, "x_block_mlp_fc1", "ff.net.0.proj"), (0, "x_block_mlp_fc2", "ff.net.2")):
        key = f"lora_unet_joint_blocks_{block}_{name}"
        up, down = lora[f"{key}.lora_up.weight"].double(), lora[f"{key}.lora_down.weight"].double()
        expected = lora[f"{key}.alpha"].item() / down.shape[0] * (up @ down)
        found = adapter.weights[f"transformer_blocks.{block}.{path}"]
        assert distance(adapter.scale * (found[1].double() @ found[0].double()), expected) < 1e-7
    assert torch.equal(
        adapter.weights["transformer_blocks.0.ff.net.2"][1],
        lora["lora_unet_joint_blocks_0_x_block_mlp_fc2.lora_up.weight"],
    )


def spelled(
    adapter: Adapter, layer: Callable[[str], str], down: str, up: str, *, alpha: bool
) -> dict[str, Tensor]:
    tensors = {}
    for path, (lower, upper) in adapter.weights.items():
        tensors[f"{layer(path)}.{down}.weight"] = lower
        tensors[f"{layer(path)}.{up}.weight"] = upper
        if alpha:
            tensors[f"{layer(path)}.alpha"] = torch.tensor(adapter.alpha)
    return tensors


@pytest.mark.parametrize(
    ("layer", "down", "up"),
    [
        (lambda path: f"lora_transformer_{path.replace('.', '_')}", "lora_down", "lora_up"),
        (lambda path: f"lycoris_{path.replace('.', '_')}", "lora_down", "lora_up"),
        (lambda path: f"transformer.{path}", "lora_A", "lora_B"),
        (lambda path: f"transformer.{path}", "lora.down", "lora.up"),
        (lambda path: f"base_model.model.{path}", "lora_A.default", "lora_B.default"),
        (lambda path: path, "lora_A", "lora_B"),
    ],
    ids=[
        "OneTrainer",
        "SimpleTuner",
        "diffusers with alphas",
        "diffusers' older halves",
        "PEFT unstripped",
        "bare",
    ],
)
def test_the_other_spellings_that_comfyui_knows_are_read(
    tmp_path: Path, layer: Callable[[str], str], down: str, up: str
) -> None:
    adapter = adapter_of(small_transformer("sd35"), SD35_TARGETS)
    file = tmp_path / "spelled.safetensors"
    save_file(spelled(adapter, layer, down, up, alpha=True), file)
    read = load_adapter(file)
    assert (read.rank, read.alpha) == (4, 6.0)
    assert read.weights.keys() == adapter.weights.keys()
    assert all(
        torch.equal(read.weights[path][half], adapter.weights[path][half])
        for path in read.weights
        for half in (0, 1)
    )


def test_comfyuis_own_names_are_read(tmp_path: Path) -> None:
    """ComfyUI's LoraSave node writes ``diffusion_model.<module>.lora_up.weight``, without alphas."""
    lora = {}
    for key, value in trained_by_kohya(variant="sd35", alpha=6.0).items():
        name, _, end = key.removeprefix("lora_unet_").partition(".")
        dotted = next(path for path in original_linears("sd35") if path.replace(".", "_") == name)
        if end != "alpha":
            lora[f"diffusion_model.{dotted}.{end}"] = value
    save_file(lora, tmp_path / "comfyui.safetensors")
    save_file(trained_by_kohya(variant="sd35", alpha=6.0), tmp_path / "kohya.safetensors")
    one, other = (load_adapter(tmp_path / f"{name}.safetensors") for name in ("comfyui", "kohya"))
    assert (one.rank, one.alpha) == (other.rank, other.alpha)
    assert all(
        torch.equal(one.weights[path][half], other.weights[path][half])
        for path in other.weights
        for half in (0, 1)
    )


QKV = "lora_unet_joint_blocks_0_x_block_attn_qkv"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({f"{QKV}.lora_up.weight": torch.zeros(3 * WIDTH + 1, 6)}, f"{QKV} has 97 outputs; .* multiple of 3"),
        ({f"{QKV}.lora_up.weight": None}, rf"{QKV}\.lora_up\.weight is missing"),
        ({f"{QKV}.lora_up.weight": torch.zeros(96, 5)}, rf"{QKV}\.lora_up\.weight has shape \[96, 5\]; expected \[out, 6\]"),
        ({f"{QKV}.lora_up.weight": torch.full((96, 6), torch.nan)}, rf"{QKV}\.lora_up\.weight holds NaN"),
        ({f"{QKV}.lora_down.weight": torch.zeros(6, 0)}, rf"{QKV}\.lora_down\.weight has shape \[6, 0\]"),
        ({f"{QKV}.lora_down.weight": torch.zeros(6, WIDTH).int()}, rf"{QKV}\.lora_down\.weight holds torch.int32"),
        ({f"{QKV}.lora_down.weight": torch.zeros(6, WIDTH, 1, 1)}, "has 4 dimensions; expected the 2"),
        ({f"{QKV}.lora_down.weight": torch.zeros(6, WIDTH).to(torch.float8_e4m3fn)}, "is stored as F8_E4M3"),
        ({f"{QKV}.alpha": torch.ones(2)}, rf"{QKV}\.alpha has shape \[2\]"),
        ({f"{QKV}.alpha": torch.tensor(0.0)}, rf"{QKV}\.alpha is 0.0; expected a positive number"),
        ({f"{QKV}.alpha": torch.tensor(torch.inf)}, rf"{QKV}\.alpha is inf"),
        (
            {f"{QKV}.lora_down.weight": None, f"{QKV}.lora_up.weight": None},
            rf"{QKV}\.alpha has no LoRA beside it",
        ),
        ({"lora_unet_x_embedder_proj.lora_down.weight": torch.zeros(4, 4, 2, 2)}, "a convolution"),
        ({"lora_unet_joint_blocks_0_x_block_attn_ln_q.lora_down.weight": torch.zeros(4, 16)}, "unexpected weight .*ln_q"),
        ({"lora_unet_joint_blocks_01_x_block_attn_proj.lora_down.weight": torch.zeros(4, 32)}, "unexpected weight .*_01_"),
        ({"lora_unet_joint_blocks_*_x_block_attn_proj.lora_down.weight": torch.zeros(4, 32)}, "unexpected weight"),
        (
            {"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(4, 32)},
            "mixes the names of two formats",
        ),
        ({f"{QKV}.lora_A.weight": torch.zeros(6, 32), f"{QKV}.lora_B.weight": torch.zeros(96, 6)}, "the same weight twice"),
        (
            {
                "lora_unet_final_layer_linear.lora_down.weight": torch.zeros(2_000_000, 1),
                "lora_unet_final_layer_linear.lora_up.weight": torch.zeros(1, 2_000_000),
            },
            "at its highest rank, 2000000, would take",
        ),
    ],
)  # fmt: skip
def test_wrong_weights_are_refused_by_file_and_key(
    tmp_path: Path, change: dict[str, Tensor | None], names: str
) -> None:
    lora: dict[str, Tensor | None] = {**trained_by_kohya(), **change}
    save_file(
        {key: value for key, value in lora.items() if value is not None}, tmp_path / "wrong.safetensors"
    )
    with pytest.raises(AdapterError, match=rf"wrong\.safetensors: .*{names}"):
        load_adapter(tmp_path / "wrong.safetensors")


def test_a_hostile_name_reaches_no_terminal(tmp_path: Path) -> None:
    save_file(
        {f"\x1b[2J{'long' * 10_000}.lora_A.weight": torch.zeros(1, 1)}, tmp_path / "hostile.safetensors"
    )
    with pytest.raises(AdapterError, match=r"unexpected weight \\x1b\[2Jlong") as caught:
        load_adapter(tmp_path / "hostile.safetensors")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_metadata_that_contradict_the_alphas_are_refused(tmp_path: Path) -> None:
    file = export_adapter(
        adapter_of(small_transformer(), ("attn.to_q",)), tmp_path / "lora.safetensors", "comfyui"
    )
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = {key: value * 2 if key.endswith("alpha") else value for key, value in load_file(file).items()}
    save_file(tensors, file, metadata)
    with pytest.raises(AdapterError, match=r"says alpha 4\.0, its weights say 8\.0 \(layer .*to_q\)"):
        load_adapter(file)


def test_a_configuration_beside_a_file_of_kohya_is_anothers(tmp_path: Path) -> None:
    save_file(trained_by_kohya(), tmp_path / "kohya.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"r": 64, "lora_alpha": 1}')
    assert load_adapter(tmp_path / "kohya.safetensors").rank == 6
