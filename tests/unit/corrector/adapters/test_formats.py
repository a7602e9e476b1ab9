"""Adapter files: what diffusers writes is read, what is written diffusers reads, and anything else is
refused."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from corrector.adapters import (
    SD3_TARGETS,
    WEIGHTS_NAME,
    Adapter,
    AdapterBank,
    AdapterError,
    adapter_bytes,
    load_adapter,
    save_adapter,
)
from corrector.files import file_sha256
from tests.support.small_sd3 import small_transformer, transformer_inputs

METADATA = {"prompt": "a person lying on the grass", "steps": "400", "owner": "“ünïcode”"}


def trained_adapter(rank: int = 4, alpha: float = 6.0) -> Adapter:
    transformer = small_transformer()
    bank = AdapterBank(transformer, slots=1, rank=8, trainable=True, base_revision="abc")
    bank.initialise(1, rank=rank, alpha=alpha, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, parameter in bank.named_parameters():
            if name.endswith("lora_B"):
                parameter[1, :, :rank] = torch.randn(parameter.shape[1], rank, generator=generator) * 0.2
    return bank.export(1, **METADATA)


def assert_same(one: Adapter, other: Adapter) -> None:
    assert (one.rank, one.alpha) == (other.rank, other.alpha)
    assert one.weights.keys() == other.weights.keys()
    for path, (down, up) in one.weights.items():
        assert torch.equal(down, other.weights[path][0])
        assert torch.equal(up, other.weights[path][1])


def test_a_saved_adapter_reads_back_whole(tmp_path: Path) -> None:
    adapter = trained_adapter().folded()
    path = save_adapter(trained_adapter(), tmp_path)
    for source in (tmp_path, path):
        read = load_adapter(source)
        assert_same(read, adapter)
        assert read.base_revision == "abc"
        assert read.metadata == METADATA
    assert (tmp_path / f"{WEIGHTS_NAME}.sha256").read_text().split() == [file_sha256(path), WEIGHTS_NAME]
    assert LoraConfig.from_pretrained(tmp_path).lora_alpha == 4
    assert sorted(LoraConfig.from_pretrained(tmp_path).target_modules) == sorted(adapter.weights)


def test_the_same_adapter_has_the_same_bytes_every_time_and_in_any_order(tmp_path: Path) -> None:
    adapter = trained_adapter()
    path = save_adapter(adapter, tmp_path)
    backwards = Adapter(
        adapter.rank,
        adapter.alpha,
        dict(reversed(list(adapter.weights.items()))),
        adapter.base_revision,
        dict(reversed(METADATA.items())),
    )
    for again in (adapter, backwards, trained_adapter(), load_adapter(path)) * 3:
        assert adapter_bytes(again) == path.read_bytes()


@pytest.mark.parametrize("with_metadata", [True, False])
def test_a_file_that_diffusers_wrote_is_read_with_its_scale(tmp_path: Path, with_metadata: bool) -> None:
    transformer = small_transformer()
    alpha = 12 if with_metadata else 4  # without metadata diffusers itself takes alpha = rank
    config = LoraConfig(r=4, lora_alpha=alpha, target_modules=list(SD3_TARGETS), init_lora_weights=False)
    transformer.add_adapter(config)
    layers = get_peft_model_state_dict(transformer)
    metadata = {**config.to_dict(), "target_modules": list(SD3_TARGETS)} if with_metadata else None
    StableDiffusion3Pipeline.save_lora_weights(
        tmp_path, transformer_lora_layers=layers, transformer_lora_adapter_metadata=metadata
    )
    inputs = transformer_inputs(2)
    with torch.no_grad():
        expected = transformer(**inputs).sample
        plain = small_transformer()
        bank = AdapterBank(plain, slots=1, rank=4)
        bank.load(1, load_adapter(tmp_path))
        with bank.rows([1, 1]):
            torch.testing.assert_close(plain(**inputs).sample, expected, rtol=1e-4, atol=1e-4)


def test_a_folder_that_peft_wrote_is_read_with_its_scale(tmp_path: Path) -> None:
    adapter = trained_adapter(rank=4, alpha=9.0)
    tensors = {}
    for path, (down, up) in adapter.weights.items():
        tensors[f"base_model.model.{path}.lora_A.weight"] = down
        tensors[f"base_model.model.{path}.lora_B.weight"] = up
    save_file(tensors, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    LoraConfig(r=4, lora_alpha=9, target_modules=list(SD3_TARGETS)).save_pretrained(tmp_path)
    read = load_adapter(tmp_path / "adapter_model.safetensors")
    assert_same(read, adapter)
    assert read.base_revision is None


def test_diffusers_loads_a_saved_adapter_and_predicts_as_the_bank(small_sd3: Path, tmp_path: Path) -> None:
    save_adapter(trained_adapter(rank=4, alpha=6.0), tmp_path)
    pipeline = StableDiffusion3Pipeline.from_pretrained(small_sd3, local_files_only=True)
    inputs = transformer_inputs(2)
    with torch.no_grad():
        bank = AdapterBank(pipeline.transformer, slots=1, rank=8)
        bank.load(1, load_adapter(tmp_path))
        plain = pipeline.transformer(**inputs).sample
        with bank.rows([1, 1]):
            expected = pipeline.transformer(**inputs).sample
        bank.remove()
        pipeline.load_lora_weights(tmp_path)
        found = pipeline.transformer(**inputs).sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - plain).abs().max() > 0.05


def rewrite(
    path: Path, change: dict[str, torch.Tensor | None], metadata: dict[str, str] | None = None
) -> Path:
    """A copy of a saved adapter with some tensors replaced, added, or (None) left out, and no digest beside
    it."""
    tensors = {**load_file(path), **{key: value for key, value in change.items() if value is not None}}
    target = path.with_name("changed.safetensors")
    save_file(
        {key: value for key, value in tensors.items() if change.get(key, value) is not None}, target, metadata
    )
    return target


KEY = "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({KEY: None}, "to_q.lora_A.weight is missing"),
        ({KEY: torch.zeros(4)}, "to_q.lora_A.weight has 1 dimensions"),
        ({KEY: torch.zeros(5, 32)}, "at rank"),
        ({KEY: torch.full((4, 32), torch.inf)}, "to_q.lora_A.weight holds NaN or infinite"),
        ({KEY.replace("A.weight", "B.bias"): torch.zeros(4)}, "unexpected weight .*to_q.lora_B.bias"),
        ({KEY.replace("lora_A.weight", "alpha"): torch.tensor(6.0)}, "says alpha 4.0, its weights say 6.0"),
        ({KEY.replace("lora_A", "lora.down"): torch.zeros(4, 32)}, "the same weight twice, .*lora.down"),
        ({KEY.replace("to_q", "to_x"): torch.zeros(4, 32)}, "unexpected weight .*to_x.lora_A.weight"),
        ({KEY.removeprefix("transformer."): torch.zeros(4, 32)}, "mixes the names of two formats"),
        ({KEY.replace("lora_A.weight", "lora_magnitude_vector"): torch.zeros(32)}, "is DoRA"),
        ({KEY.replace("lora_A.weight", "diff"): torch.zeros(32, 32)}, "holds whole differences"),
        ({"lora_unet_mid_block_proj_in.hada_w1_a": torch.zeros(4, 4)}, "belongs to a U-Net"),
        ({"unet.down_blocks.0.attn.to_q.lora_A.weight": torch.zeros(4, 4)}, "belongs to a U-Net"),
        ({"lora_unet_joint_blocks_0_mlp.lokr_w1": torch.zeros(4, 4)}, "is LoKr, no LoRA"),
        (
            {"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": torch.zeros(4, 4)},
            "belongs to FLUX",
        ),
        ({"text_encoder.layers.0.q_proj.lora_A.weight": torch.zeros(4, 4)}, "changes a text encoder"),
        ({"lora_te1_layers_0_q_proj.lora_down.weight": torch.zeros(4, 4)}, "changes a text encoder"),
    ],
)
def test_wrong_weights_are_refused_by_name(
    tmp_path: Path, change: dict[str, torch.Tensor | None], names: str
) -> None:
    path = rewrite(save_adapter(trained_adapter(), tmp_path), change)
    with pytest.raises(AdapterError, match=rf"changed.safetensors: .*{names}"):
        load_adapter(path)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"transformer.r": 8, "transformer.lora_alpha": 8}, "says rank 8, its weights say 4"),
        ({"transformer.lora_alpha": "much"}, "lora_alpha much; expected a number"),
        ({"transformer.lora_alpha": -3}, "alpha is -3"),
        ({"transformer.use_dora": True}, "use_dora=True"),
        ({"transformer.use_rslora": True}, "use_rslora=True"),
        ({"transformer.peft_type": "LOHA"}, "is a LOHA adapter"),
        ({"transformer.modules_to_save": ["proj_out"]}, "modules_to_save"),
        ([1], "not a JSON object"),
    ],
)
def test_a_configuration_that_cannot_be_honoured_is_refused(
    tmp_path: Path, config: object, names: str
) -> None:
    saved = save_adapter(trained_adapter(), tmp_path)
    path = rewrite(saved, {}, {"lora_adapter_metadata": json.dumps(config)})
    with pytest.raises(AdapterError, match=names):
        load_adapter(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no such file"):
        load_adapter(tmp_path)
    pickle = tmp_path / "pytorch_lora_weights.bin"
    torch.save({}, pickle)
    with pytest.raises(AdapterError, match=r"not a \.safetensors file"):
        load_adapter(pickle)
    disguised = tmp_path / "disguised.safetensors"
    disguised.write_bytes(pickle.read_bytes())
    with pytest.raises(AdapterError, match="not readable as safetensors"):
        load_adapter(disguised)
    path = save_adapter(trained_adapter(), tmp_path / "adapter")
    payload = bytearray(path.read_bytes())
    payload[-1] ^= 1
    path.write_bytes(payload)
    with pytest.raises(AdapterError, match="do not match"):
        load_adapter(path)
    huge = tmp_path / "huge.safetensors"
    with huge.open("wb") as file:
        file.truncate(3 * 1024**3)
    with pytest.raises(AdapterError, match="more than an adapter can have"):
        load_adapter(huge)
