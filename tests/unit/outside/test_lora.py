"""LoRA files as other programs write them: each kind is read with the right strength, or refused by its name; and what we
export opens elsewhere with the right strength."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from corrector.adapters import FORMATS, Adapter, AdapterError, export_adapter, load_adapter, read_lora
from corrector.adapters.formats.config import peft_config
from corrector.files import file_sha256
from corrector.record.correction_record import CorrectionRecord
from corrector.registry import Reference, export, fetch, register
from tests.support.registering import write_work
from tests.support.small_banks import SD35_TARGETS, adapter_of, distance, predict
from tests.support.small_sd3 import small_transformer, transformer_inputs

FILES = Path(__file__).parent / "lora"
ATTENTION = ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0")
RANK, ALPHA = 8, 2.0
Effect = dict[str, Tensor]
"""Path -> ``alpha / rank * B A``."""


def effect(adapter: Adapter) -> Effect:
    return {
        path: adapter.scale * (up.double() @ down.double()) for path, (down, up) in adapter.weights.items()
    }


def assert_same(found: Effect, expected: Effect) -> None:
    assert found.keys() == expected.keys()
    assert max(distance(found[path], expected[path]) for path in expected) < 1e-6


def trained() -> Adapter:
    return adapter_of(small_transformer(), ATTENTION, rank=RANK, alpha=ALPHA)


def spelled(
    adapter: Adapter, name: Callable[[str], str], down: str = "lora_A", up: str = "lora_B"
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for path, (lower, upper) in adapter.weights.items():
        tensors |= {f"{name(path)}.{down}.weight": lower, f"{name(path)}.{up}.weight": upper}
    return tensors


def alphas(adapter: Adapter, name: Callable[[str], str]) -> dict[str, Tensor]:
    return {f"{name(path)}.alpha": torch.tensor(adapter.alpha) for path in adapter.weights}


def diffusers(path: str) -> str:
    return f"transformer.{path}"


@pytest.mark.parametrize(
    ("file", "name", "ending", "dialect"),
    [
        ("alpha-metadata-transformer-keys", "transformer.{}", "weight", "diffusers"),
        ("mixed-rank-caret", "transformer.{}", "weight", "diffusers"),
        ("compile-orig-mod", "transformer._orig_mod.{}", "weight", "diffusers"),
        ("adapter-name-default-0", "transformer.{}", "default_0.weight", "diffusers"),
    ],
)
def test_a_file_from_outside_is_read(file: str, name: str, ending: str, dialect: str) -> None:
    source = FILES / f"{file}.safetensors"
    tensors, read = load_file(source), read_lora(source)
    scale = 0.25 if file.startswith("alpha") else 1.0
    expected = {}
    for path in read.adapter.weights:
        down = tensors.pop(f"{name.format(path)}.lora_A.{ending}").double()
        expected[path] = scale * (tensors.pop(f"{name.format(path)}.lora_B.{ending}").double() @ down)
    assert not tensors
    assert_same(effect(read.adapter), expected)
    assert read.dialect == dialect


def test_a_file_with_numbered_q_k_and_v_is_read() -> None:
    source = FILES / "omi-qkv-numbered.safetensors"
    tensors, read = load_file(source), read_lora(source)
    expected = {}
    for block in (0, 1):
        for side, paths in (
            ("x_block", ("attn.to_q", "attn.to_k", "attn.to_v")),
            ("context_block", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
        ):
            for number, path in enumerate(paths):
                key = f"transformer.joint_blocks.{block}.{side}.attn.qkv.{number}"
                halves = (tensors.pop(f"{key}.lora_{half}.weight").double() for half in ("up", "down"))
                expected[f"transformer_blocks.{block}.{path}"] = torch.matmul(*halves)
    assert not tensors
    assert_same(effect(read.adapter), expected)
    assert (read.dialect, read.alpha) == ("OMI (OneTrainer)", "8 at rank 8, not stated: the rank")


CONFIG = {"r": RANK, "lora_alpha": ALPHA}
PREFIXED = {f"transformer.{key}": value for key, value in CONFIG.items()}


@pytest.mark.parametrize(
    ("metadata", "place"),
    [
        ({"lora_adapter_metadata": json.dumps(PREFIXED)}, "metadata lora_adapter_metadata"),
        ({"adapter_config": json.dumps(CONFIG)}, "metadata adapter_config"),
        ({"transformer.lora_alpha": "2", "transformer.r": "8"}, "metadata transformer.lora_alpha"),
        ({"lora_alpha": "2.0"}, "metadata lora_alpha"),
        ({"network_alpha": "2", "rank": "8.0"}, "metadata network_alpha"),
        ({"alpha": "2", "use_dora": "False", "rank_pattern": "{}"}, "metadata alpha"),
        (
            {
                "lora_alpha": "16",
                "alpha_pattern": json.dumps({"_orig_mod.to_out.0": 2, "attn.to_q": 2, r"to\.k": 9, "to_k$": 2, "to_v": 2}),
            },
            "metadata lora_alpha",
        ),
    ],
)  # fmt: skip
def test_alpha_in_metadata_counts(tmp_path: Path, metadata: dict[str, str], place: str) -> None:
    save_file(spelled(trained(), diffusers), tmp_path / "lora.safetensors", metadata)
    read = read_lora(tmp_path / "lora.safetensors")
    assert_same(effect(read.adapter), effect(trained()))
    assert read.alpha == f"2 at rank 8, from {place}"


def test_alpha_in_tensors_and_in_a_file_beside_counts(tmp_path: Path) -> None:
    tensors = spelled(trained(), diffusers)
    save_file(tensors | alphas(trained(), diffusers), tmp_path / "tensors.safetensors")
    read = read_lora(tmp_path / "tensors.safetensors")
    assert read.alpha == "2 at rank 8, from alpha tensors"
    assert_same(effect(read.adapter), effect(trained()))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG))
    assert_same(effect(load_adapter(tmp_path)), effect(trained()))


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        ({"lora_alpha": "2", "alpha": "8"}, "contradict each other, alpha 8 and lora_alpha 2"),
        ({"lora_alpha": "2", "transformer.lora_alpha": "8"}, "contradict each other"),
        ({"ss_network_alpha": "2", "ss_network_dim": "8"}, "ss_network_alpha 2, its layers have rank 8"),
        ({"my_tool.alpha": "2"}, "my_tool.alpha 2, its layers have rank 8"),
        ({"lora_alpha": "2", "r": "4"}, "metadata lora_alpha says rank 4, its weights say 8"),
        ({"lora_alpha": "much"}, "expected a number"),
        ({"lora_alpha": "2", "use_rslora": "True"}, "use_rslora=True"),
        ({"lora_alpha": "2", "alpha_pattern": '{"attn.+": 2}'}, "not a regular expression"),
    ],
)
def test_an_alpha_that_is_not_clear_is_refused_unless_it_is_given(
    tmp_path: Path, metadata: dict[str, str], names: str
) -> None:
    file = tmp_path / "lora.safetensors"
    save_file(spelled(trained(), diffusers), file, metadata)
    with pytest.raises(AdapterError, match=rf"lora\.safetensors: .*{names}"):
        load_adapter(file)
    read = read_lora(file, alpha=2)
    assert_same(effect(read.adapter), effect(trained()))
    assert read.alpha == "2 at rank 8, as given"
    with pytest.raises(AdapterError, match="must be a positive number"):
        read_lora(file, alpha=float("nan"))


def test_an_alpha_of_kohyas_metadata_that_is_the_rank_or_stands_in_tensors_is_no_question(
    tmp_path: Path,
) -> None:
    tensors = spelled(trained(), diffusers)
    save_file(tensors, tmp_path / "rank.safetensors", {"ss_network_alpha": "8.0"})
    assert load_adapter(tmp_path / "rank.safetensors").scale == 1
    own = tensors | alphas(trained(), diffusers)
    save_file(own, tmp_path / "tensors.safetensors", {"ss_network_alpha": "16"})
    assert_same(effect(load_adapter(tmp_path / "tensors.safetensors")), effect(trained()))


def underscored(prefix: str) -> Callable[[str], str]:
    return lambda path: prefix + path.replace(".", "_")


@pytest.mark.parametrize(
    ("name", "down", "up", "dialect"),
    [
        (lambda path: f"base_model.model.{path}", "lora_A", "lora_B", "PEFT"),
        (lambda path: f"base_model.model.{path}", "lora_A.my-style", "lora_B.my-style", "PEFT"),
        (lambda path: f"base_model.model.transformer.{path}", "lora_A", "lora_B", "diffusers"),
        (lambda path: f"module.{path}", "lora_A.default", "lora_B.default", "PEFT"),
        (lambda path: f"transformer.module._orig_mod.{path}", "lora_A", "lora_B", "diffusers"),
        (
            lambda path: f"transformer.{path.replace('.attn', '._orig_mod.attn')}",
            "lora_A",
            "lora_B",
            "diffusers",
        ),
        (lambda path: f"mmdit.{path}", "lora_A", "lora_B", "PEFT"),
        (lambda path: f"diffusion_model.{path}", "lora_down", "lora_up", "PEFT"),
        (lambda path: f"lora_transformer.{path}", "lora_down", "lora_up", "OneTrainer"),
        (underscored("lora_transformer_"), "lora_down", "lora_up", "OneTrainer"),
        (underscored("lora_unet_"), "lora_down", "lora_up", "kohya"),
        (underscored("lora_unet__orig_mod_"), "lora_down", "lora_up", "kohya"),
        (underscored("lycoris_"), "lora_down", "lora_up", "SimpleTuner with LyCORIS"),
    ],
)
def test_wrappers_and_an_adapters_own_name_are_no_part_of_a_layers_name(
    tmp_path: Path, name: Callable[[str], str], down: str, up: str, dialect: str
) -> None:
    file = tmp_path / "lora.safetensors"
    save_file(spelled(trained(), name, down, up) | alphas(trained(), name), file)
    read = read_lora(file)
    assert_same(effect(read.adapter), effect(trained()))
    assert read.dialect == dialect


def one(key: str, *shape: int) -> dict[str, Tensor]:
    return {key: torch.zeros(*shape) if shape else torch.zeros(4, 4)}


@pytest.mark.parametrize(
    ("tensors", "names"),
    [
        (one("transformer.transformer_blocks.0.attn.to_q.lokr_w1"), "is LoKr, no LoRA"),
        (one("lycoris_transformer_blocks_0_attn_to_q.hada_w1_a"), "is LoHa, no LoRA"),
        (one("lora_unet_joint_blocks_0_x_block_attn_qkv.oft_diag"), "is OFT, no LoRA"),
        (one("lora_unet_joint_blocks_0_x_block_attn_qkv.a1.weight"), "is GLoRA, no LoRA"),
        (one("lora_unet_joint_blocks_0_x_block_attn_qkv.on_input"), r"is \(IA\)³, no LoRA"),
        (one("lora_unet_joint_blocks_0_x_block_attn_qkv.dora_scale"), "is DoRA"),
        (one("base_model.model.transformer_blocks.0.attn.to_q.lora_magnitude_vector"), "is DoRA"),
        (one("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_mid.weight", 4, 4, 3, 3), "a Tucker decomposition"),
        (one("lora_unet_joint_blocks_0_x_block_attn_qkv.diff"), "whole differences"),
        (one("lora_transformer_pos_embed_proj.lora_down.weight", 4, 16, 2, 2), "the patch embedding, a convolution"),
        (
            one("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight", 4, 2048),
            "a U-Net, that of Stable Diffusion XL",
        ),
        (one("unet.up_blocks.1.attentions.0.attn2.processor.to_v_lora.down.weight", 4, 768), "that of Stable Diffusion 1;"),
        (one("down_blocks.0.attentions.0.attn2.to_v.lora_A.weight", 4, 1024), "that of Stable Diffusion 2;"),
        (one("lora_unet_mid_block_attentions_0_proj_in.alpha"), "as Stable Diffusion 1, 2 and XL have"),
        (one("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"), "belongs to FLUX"),
        (one("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight"), "belongs to FLUX"),
        (one("transformer.transformer_blocks.0.img_mlp.net.2.lora_A.weight"), "belongs to Qwen-Image"),
        (one("diffusion_model.blocks.0.self_attn.q.lora_A.weight"), "belongs to Wan"),
        (one("transformer.transformer_blocks.0.attn1.to_q.lora_A.weight"), "belongs to PixArt, Sana or LTX"),
        (one("transformer.joint_transformer_blocks.0.attn.to_q.lora_A.weight"), "belongs to AuraFlow"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path: Path, tensors: dict[str, Tensor], names: str) -> None:
    save_file(spelled(trained(), diffusers) | tensors, tmp_path / "other.safetensors")
    with pytest.raises(AdapterError, match=rf"other\.safetensors: .*{names}"):
        load_adapter(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    "key",
    [
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.down.weight",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lora_te3_encoder_block_0_layer_0_SelfAttention_q.lora_down.weight",
        "clip_g.text_model.encoder.layers.0.mlp.fc1.lora_down.weight",
        "t5.encoder.block.0.layer.0.SelfAttention.q.lora_down.weight",
        "bundle_emb.style.clip_l",
    ],
)
def test_parts_of_text_encoders_are_left_out_on_demand_only(tmp_path: Path, key: str) -> None:
    file = tmp_path / "with-text.safetensors"
    save_file(spelled(trained(), diffusers) | alphas(trained(), diffusers) | one(key), file)
    with pytest.raises(AdapterError, match=r"changes a text encoder, too.*--without-text-encoders"):
        load_adapter(file)
    read = read_lora(file, without_text_encoders=True)
    assert read.left_out == 1
    assert_same(effect(read.adapter), effect(trained()))
    save_file(one(key), tmp_path / "text-only.safetensors")
    with pytest.raises(AdapterError, match="holds no weights of a transformer"):
        read_lora(tmp_path / "text-only.safetensors", without_text_encoders=True)


def test_several_adapters_and_a_layer_that_is_there_twice_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    two = {
        **spelled(trained(), diffusers, "lora_A.one", "lora_B.one"),
        **spelled(trained(), diffusers, "lora_A.two", "lora_B.two"),
    }
    save_file(two, file)
    with pytest.raises(AdapterError, match="holds several adapters, one, two"):
        load_adapter(file)
    qkv = "transformer.joint_blocks.0.x_block.attn.qkv"
    sizes = {f"{qkv}.lora_down": (4, 32), f"{qkv}.lora_up": (96, 4)}
    sizes |= {f"{qkv}.1.lora_down": (4, 32), f"{qkv}.1.lora_up": (32, 4)}
    save_file({f"{key}.weight": torch.ones(size) for key, size in sizes.items()}, file)
    with pytest.raises(AdapterError, match=r"holds transformer_blocks\.0\.attn\.to_k twice"):
        load_adapter(file)


def test_files_of_earlier_versions_whose_alpha_is_not_the_rank_keep_their_effect(tmp_path: Path) -> None:
    """Until then alpha stood in the header and beside the file, and B was not scaled."""
    header = {
        "lora_adapter_metadata": json.dumps(
            {f"transformer.{k}": v for k, v in peft_config(trained()).items()}
        )
    }
    file = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(spelled(trained(), diffusers), file, header)
    (tmp_path / "adapter_config.json").write_text(json.dumps(peft_config(trained())))
    read = load_adapter(tmp_path)
    assert (read.rank, read.alpha) == (RANK, ALPHA)
    assert_same(effect(read), effect(trained()))


def opened_by_file(pipeline: StableDiffusion3Pipeline, folder: Path, file: str) -> None:
    pipeline.transformer.load_lora_adapter(folder / file)


def opened_by_folder(pipeline: StableDiffusion3Pipeline, folder: Path, _file: str) -> None:
    pipeline.load_lora_weights(folder)


def opened_by_weight_name(pipeline: StableDiffusion3Pipeline, folder: Path, file: str) -> None:
    pipeline.load_lora_weights(folder, weight_name=file)


def opened_as_tensors(pipeline: StableDiffusion3Pipeline, folder: Path, file: str) -> None:
    pipeline.load_lora_weights(load_file(folder / file))


@pytest.mark.parametrize(
    "opened", [opened_by_file, opened_by_folder, opened_by_weight_name, opened_as_tensors]
)
def test_an_export_opens_in_diffusers_with_the_right_strength(
    small_sd3: Path, tmp_path: Path, opened: Callable[[StableDiffusion3Pipeline, Path, str], None]
) -> None:
    adapter, inputs = trained(), transformer_inputs(2)
    file = export_adapter(adapter, tmp_path / "lora", "diffusers")
    pipeline = StableDiffusion3Pipeline.from_pretrained(small_sd3, local_files_only=True)
    weights = {
        f"{path}.weight": pipeline.transformer.state_dict()[f"{path}.weight"] + update.float()
        for path, update in effect(adapter).items()
    }
    merged = small_transformer()
    merged.load_state_dict(pipeline.transformer.state_dict() | weights)
    opened(pipeline, file.parent, file.name)
    with torch.no_grad():
        plain, expected = predict(small_transformer(), inputs), predict(merged, inputs)
        assert distance(predict(pipeline.transformer, inputs), expected) < 1e-4
    assert distance(plain, expected) > 0.05


def test_an_export_for_comfyui_and_kohya_has_the_right_strength_with_alpha_and_without(
    tmp_path: Path,
) -> None:
    """ComfyUI: alpha / rank * up @ down, and up @ down where there is no tensor of alpha."""
    adapter = adapter_of(small_transformer("sd35"), SD35_TARGETS, rank=RANK, alpha=ALPHA)
    tensors = load_file(export_adapter(adapter, tmp_path / "lora.safetensors", "comfyui"))
    expected, single = effect(adapter), "transformer_blocks.1.attn.to_out.0"
    key = "lora_unet_joint_blocks_1_x_block_attn_proj"
    halves = [tensors[f"{key}.lora_{half}.weight"].double() for half in ("up", "down")]
    for scale in (tensors[f"{key}.alpha"].item() / halves[1].shape[0], 1.0):
        assert distance(scale * (halves[0] @ halves[1]), expected[single]) < 1e-6
    fused = [
        tensors[f"lora_unet_joint_blocks_1_x_block_attn_qkv.lora_{half}.weight"].double()
        for half in ("up", "down")
    ]
    for found, path in zip((fused[0] @ fused[1]).chunk(3), ("to_q", "to_k", "to_v"), strict=True):
        assert distance(found, expected[f"transformer_blocks.1.attn.{path}"]) < 1e-6


def test_every_format_says_that_alpha_is_the_rank(tmp_path: Path) -> None:
    for to in FORMATS:
        place = tmp_path / ("lora.safetensors" if to == "comfyui" else to)
        read = load_adapter(export_adapter(trained(), place, to))
        assert (read.rank, read.alpha) == (RANK, RANK)
        assert_same(effect(read), effect(trained()))


def test_a_version_registered_with_another_alpha_stays_as_it_is_and_is_exported_with_the_scale_in_its_weights(
    root: Path, tmp_path: Path
) -> None:
    folder = write_work(tmp_path / "record", 1)
    old = replace(load_adapter(folder / "adapter"), alpha=2.0)
    file = folder / "adapter" / "pytorch_lora_weights.safetensors"
    header = {f"transformer.{key}": value for key, value in peft_config(old).items()}
    save_file(spelled(old, diffusers), file, {"lora_adapter_metadata": json.dumps(header)})
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(peft_config(old)))
    file.with_name(f"{file.name}.sha256").unlink()
    digest = file_sha256(file)
    CorrectionRecord.load(folder).model_copy(update={"adapter_sha256": digest}).save(folder)
    version = register(folder, tracking_uri=None, root=root)

    fetched = fetch(version.name, "1", tmp_path / "fetched", tracking_uri=None, root=root)
    reference = Reference(version.name, "1")
    exported = export(reference, tmp_path / "exported", "diffusers", tracking_uri=None, root=root)

    assert version.sha256 == digest == file_sha256(fetched / file.name)
    assert load_adapter(fetched).alpha == 2
    assert load_adapter(exported).alpha == load_adapter(exported).rank == 8
    assert_same(effect(load_adapter(exported)), effect(old))
