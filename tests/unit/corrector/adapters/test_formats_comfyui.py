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
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from corrector.adapters import Adapter, AdapterBank, AdapterError, export_adapter, load_adapter
from tests.support.small_banks import SD35_TARGETS, distance, predict, random_adapter
from tests.support.small_sd3 import Variant, small_transformer, transformer_inputs

WIDTH, LAYERS = 32, 3

BLOCK_NAMES = {
    "context_block.adaLN_modulation.1": (6 * WIDTH, WIDTH),
    "context_block.attn.qkv": (3 * WIDTH, WIDTH),
    "context_block.attn.proj": (WIDTH, WIDTH),
    "context_block.mlp.fc1": (4 * WIDTH, WIDTH),
    "context_block.mlp.fc2": (WIDTH, 4 * WIDTH),
    "x_block.adaLN_modulation.1": (6 * WIDTH, WIDTH),
    "x_block.attn.qkv": (3 * WIDTH, WIDTH),
    "x_block.attn.proj": (WIDTH, WIDTH),
    "x_block.mlp.fc1": (4 * WIDTH, WIDTH),
    "x_block.mlp.fc2": (WIDTH, 4 * WIDTH),
}
"""Linears of a block in Stability's release, with the shapes that the small transformer's have."""
LAST_BLOCK_NAMES = {
    **{name: shape for name, shape in BLOCK_NAMES.items() if name.startswith("x_block")},
    "context_block.adaLN_modulation.1": (2 * WIDTH, WIDTH),
    "context_block.attn.qkv": (3 * WIDTH, WIDTH),
}
DUAL_BLOCK_NAMES = {
    **BLOCK_NAMES,
    "x_block.adaLN_modulation.1": (9 * WIDTH, WIDTH),
    "x_block.attn2.qkv": (3 * WIDTH, WIDTH),
    "x_block.attn2.proj": (WIDTH, WIDTH),
}
OTHER_NAMES = {
    "t_embedder.mlp.0": (WIDTH, 256),
    "t_embedder.mlp.2": (WIDTH, WIDTH),
    "y_embedder.mlp.0": (WIDTH, 28),
    "y_embedder.mlp.2": (WIDTH, WIDTH),
    "context_embedder": (WIDTH, 32),
    "final_layer.adaLN_modulation.1": (2 * WIDTH, WIDTH),
    "final_layer.linear": (16, WIDTH),
}


def original_linears(variant: Variant) -> dict[str, tuple[int, int]]:
    linears = dict(OTHER_NAMES)
    for block in range(LAYERS):
        inner = DUAL_BLOCK_NAMES if variant == "sd35" and block < 2 else BLOCK_NAMES
        for name, shape in (LAST_BLOCK_NAMES if block == LAYERS - 1 else inner).items():
            linears[f"joint_blocks.{block}.{name}"] = shape
    return linears


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


def adapter_of(
    transformer: SD3Transformer2DModel, targets: tuple[str, ...], *, rank: int = 4, alpha: float = 6.0
) -> Adapter:
    bank = AdapterBank(transformer, slots=1, rank=rank, targets=targets)
    adapter = random_adapter(bank, transformer, rank=rank, alpha=alpha, seed=1)
    bank.remove()
    return adapter


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
    assert [tensors[f"{name}.alpha"].item() for name in (fused, single)] == [18.0, 6.0]
    assert tensors[f"{single}.lora_down.weight"].shape == (4, WIDTH)


def trained_by_kohya(
    *, variant: Variant = "sd3", rank: int = 6, alpha: float = 3.0, split_qkv: bool = False
) -> dict[str, Tensor]:
    """What ``networks.lora_sd3`` saves: every Linear of the blocks, q, k and v with one A unless ``split_qkv``."""
    generator = torch.Generator().manual_seed(7)
    lora = {}
    for name, (outputs, inputs) in original_linears(variant).items():
        if not name.startswith("joint_blocks"):
            continue
        key = "lora_unet_" + name.replace(".", "_")
        blocks = 3 if split_qkv and name.endswith("qkv") else 1
        ups = [torch.randn(outputs // blocks, rank, generator=generator) * 0.3 for _ in range(blocks)]
        lora[f"{key}.lora_down.weight"] = (
            torch.randn(blocks * rank, inputs, generator=generator) * inputs**-0.5
        )
        lora[f"{key}.lora_up.weight"] = torch.block_diag(*ups)
        lora[f"{key}.alpha"] = torch.tensor(alpha)
    return lora


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
    file, lora = tmp_path / "kohya.safetensors", trained_by_kohya()
    save_file(lora, file)
    again = load_file(export_adapter(load_adapter(file), tmp_path / "again.safetensors", "comfyui"))
    assert again.keys() == lora.keys()
    assert all(torch.equal(again[key], lora[key]) for key in lora)


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
    with pytest.raises(AdapterError, match=r"says alpha 6\.0, its weights say 12\.0 \(layer .*to_q\)"):
        load_adapter(file)


def test_a_configuration_beside_a_file_of_kohya_is_anothers(tmp_path: Path) -> None:
    save_file(trained_by_kohya(), tmp_path / "kohya.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"r": 64, "lora_alpha": 1}')
    assert load_adapter(tmp_path / "kohya.safetensors").rank == 6


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
    with pytest.raises(AdapterError, match="beyond float32"):
        export_adapter(
            Adapter(2, 1e300, {"proj_out": weights["blocks.0.to_q"]}),
            tmp_path / "lora.safetensors",
            "comfyui",
        )
    assert not list(tmp_path.iterdir())
