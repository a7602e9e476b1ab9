"""Converting between formats: nothing changes on the way, each file loads in the library that it is for, and no file, however
damaged, does more than to be refused."""

import json
import tempfile
from pathlib import Path
from typing import cast

import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file

from corrector.adapters import (
    FORMATS,
    PEFT_WEIGHTS_NAME,
    WEIGHTS_NAME,
    Adapter,
    AdapterBank,
    AdapterError,
    AdapterFormat,
    adapter_bytes,
    convert_adapter,
    export_adapter,
    load_adapter,
    save_adapter,
)
from tests.support.small_banks import SD35_TARGETS, distance, predict, random_adapter
from tests.support.small_sd3 import Variant, small_transformer, transformer_inputs

LAYERS = (
    "attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0",
    "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out",
    "attn2.to_q", "attn2.to_k", "attn2.to_v", "attn2.to_out.0",
    "ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2",
    "norm1.linear", "norm1_context.linear",
)  # fmt: skip
PATHS = (
    *(f"transformer_blocks.{block}.{layer}" for block in (0, 7, 23) for layer in LAYERS),
    "context_embedder", "norm_out.linear", "proj_out",
    "time_text_embed.timestep_embedder.linear_1", "time_text_embed.timestep_embedder.linear_2",
    "time_text_embed.text_embedder.linear_1", "time_text_embed.text_embedder.linear_2",
)  # fmt: skip
DTYPES = (torch.float32, torch.float32, torch.bfloat16, torch.float16, torch.float64)


@st.composite
def adapters(draw: st.DrawFn) -> Adapter:
    """Any layers, rank, alpha and dtype; q, k and v that share their A; layers that are untrained, or zero altogether."""
    rank, inputs = draw(st.integers(1, 7)), draw(st.integers(1, 6))
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    one_down = torch.randn(rank, inputs, generator=generator).to(dtype)
    weights = {}
    for path in draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=12, unique=True)):
        kind = draw(st.sampled_from(["trained", "trained", "one A", "untrained", "zero"]))
        down = one_down if kind == "one A" else torch.randn(rank, inputs, generator=generator).to(dtype)
        up = torch.randn(2 * inputs, rank, generator=generator).to(dtype)
        weights[path] = (down * (kind != "zero"), up * (kind in ("trained", "one A")))
    alpha = draw(st.floats(1e-3, 1e4, allow_subnormal=False))
    texts = draw(st.dictionaries(st.text(max_size=4), st.text(max_size=8), max_size=2))
    return Adapter(rank, alpha, weights, draw(st.none() | st.text(max_size=5)), texts)


def destination(folder: Path, to: AdapterFormat, name: str = "adapter") -> Path:
    return folder / (f"{name}.safetensors" if to == "comfyui" else f"{name}-{to}")


def assert_identical(found: Adapter, expected: Adapter) -> None:
    assert (found.rank, found.alpha) == (expected.rank, expected.alpha)
    assert (found.base_revision, found.metadata) == (expected.base_revision, expected.metadata)
    assert found.weights.keys() == expected.weights.keys()
    for path, halves in expected.weights.items():
        for half, other in zip(halves, found.weights[path], strict=True):
            assert half.dtype == other.dtype
            assert torch.equal(half, other)


@settings(max_examples=60, deadline=None)
@given(adapter=adapters(), route=st.lists(st.sampled_from(FORMATS), min_size=1, max_size=4))
def test_no_conversion_changes_a_bit(adapter: Adapter, route: list[AdapterFormat]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = export_adapter(adapter, destination(Path(folder), route[0], "0"), route[0])
        for number, to in enumerate(route[1:], start=1):
            path = convert_adapter(path, destination(Path(folder), to, str(number)), to)
        read = load_adapter(path)
        assert path.read_bytes() == adapter_bytes(adapter, route[-1])
    assert_identical(read, adapter.folded())


@settings(max_examples=30, deadline=None)
@given(adapter=adapters(), data=st.data())
def test_a_file_for_comfyui_that_lost_its_metadata_has_the_same_effect(
    adapter: Adapter, data: st.DataObject
) -> None:
    """Alpha is float32 then, and an untrained layer may be read with another rank."""
    with tempfile.TemporaryDirectory() as folder:
        file = export_adapter(adapter, Path(folder) / "lora.safetensors", "comfyui")
        save_file(load_file(file), file)
        read = load_adapter(file)
    assert read.weights.keys() >= adapter.weights.keys()
    for path, (down, up) in read.weights.items():
        found = read.scale * (up.double() @ down.double())
        expected = torch.zeros_like(found)
        if path in adapter.weights:
            down, up = adapter.weights[path]
            expected = adapter.scale * (up.double() @ down.double())
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@settings(max_examples=150, deadline=None)
@given(
    adapter=adapters(),
    to=st.sampled_from(FORMATS),
    edits=st.lists(
        st.tuples(st.integers(0, 2**16), st.binary(min_size=1, max_size=3)), min_size=1, max_size=4
    ),
    end=st.none() | st.integers(0, 2**12),
)
def test_a_damaged_file_is_read_or_refused_and_never_more(
    adapter: Adapter, to: AdapterFormat, edits: list[tuple[int, bytes]], end: int | None
) -> None:
    payload = bytearray(adapter_bytes(adapter, to))
    for place, value in edits:
        start = place % len(payload)
        payload[start : start + len(value)] = value
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "damaged.safetensors"
        file.write_bytes(payload[:end])
        try:
            load_adapter(file)
        except AdapterError as error:
            assert str(error).startswith(str(file))  # noqa: PT017 - most damage is refused, some leaves an adapter


def test_zeros_of_layers_that_the_configuration_does_not_name_are_refused(tmp_path: Path) -> None:
    untrained = {"transformer_blocks.0.ff.net.0.proj": (torch.ones(1, 1), torch.zeros(2, 1))}
    payload = adapter_bytes(Adapter(1, 1.0, untrained), "comfyui")
    file = tmp_path / "damaged.safetensors"
    file.write_bytes(payload.replace(b"ff.net.0.proj", b"ff.net.9.proj"))

    with pytest.raises(AdapterError, match="names none of their layers"):
        load_adapter(file)


def adapter_for(transformer: SD3Transformer2DModel, variant: Variant, *, rank: int, alpha: float) -> Adapter:
    targets = SD35_TARGETS if variant == "sd35" else SD35_TARGETS[:8]
    bank = AdapterBank(transformer, slots=1, rank=rank, targets=targets, base_revision="abc")
    adapter = random_adapter(bank, transformer, rank=rank, alpha=alpha, seed=2)
    bank.remove()
    return adapter


def with_bank(transformer: SD3Transformer2DModel, adapter: Adapter) -> torch.Tensor:
    bank = AdapterBank(transformer, slots=1, rank=adapter.rank, targets=tuple(adapter.weights))
    bank.load(1, adapter)
    with torch.no_grad(), bank.rows([1, 1]):
        prediction = predict(transformer, transformer_inputs(2))
    bank.remove()
    return prediction


@torch.no_grad()
def plain_and_adapted(
    transformer: SD3Transformer2DModel, adapted: torch.nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    inputs = transformer_inputs(2)
    return predict(transformer, inputs), predict(cast(SD3Transformer2DModel, adapted), inputs)


@pytest.mark.parametrize("variant", ["sd3", "sd35"])
def test_peft_loads_the_export_and_predicts_as_the_bank(tmp_path: Path, variant: Variant) -> None:
    transformer = small_transformer(variant)
    adapter = adapter_for(transformer, variant, rank=4, alpha=6.5)
    expected = with_bank(transformer, adapter)
    export_adapter(adapter, tmp_path, "peft")
    loaded = PeftModel.from_pretrained(small_transformer(variant), str(tmp_path)).eval()
    plain, found = plain_and_adapted(transformer, loaded)
    assert distance(found, expected) < 1e-5
    assert distance(plain, expected) > 0.05
    second = PeftModel.from_pretrained(small_transformer(variant), str(tmp_path), adapter_name="first")
    report = second.load_adapter(str(tmp_path), adapter_name="second")
    assert not report.unexpected_keys
    assert not [key for key in report.missing_keys if "second" in key]
    second.set_adapter("second")
    assert torch.equal(plain_and_adapted(transformer, second.eval())[1], found)


@pytest.mark.parametrize("variant", ["sd3", "sd35"])
def test_a_file_for_comfyui_comes_to_diffusers_and_predicts_as_the_bank(
    request: pytest.FixtureRequest, tmp_path: Path, variant: Variant
) -> None:
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        request.getfixturevalue(f"small_{variant}"), local_files_only=True
    )
    adapter = adapter_for(pipeline.transformer, variant, rank=4, alpha=6.5)
    expected = with_bank(pipeline.transformer, adapter)
    file = export_adapter(adapter, tmp_path / "lora.safetensors", "comfyui")
    pipeline.load_lora_weights(convert_adapter(file, tmp_path / "diffusers", "diffusers").parent)
    _, found = plain_and_adapted(pipeline.transformer, pipeline.transformer)
    assert distance(found, expected) < 1e-5


def test_what_peft_saved_with_ranks_and_alphas_of_layers_is_read_with_its_effect(tmp_path: Path) -> None:
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["attn.to_q", "attn.to_v", "ff.net.2"],
        rank_pattern={"attn.to_v": 2, "transformer_blocks.1.ff.net.2": 3},
        alpha_pattern={"attn.to_v": 5},
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    theirs = PeftModel(small_transformer(), config).eval()
    theirs.save_pretrained(str(tmp_path))
    adapter = load_adapter(tmp_path)
    assert (adapter.rank, adapter.alpha) == (4, 6.0)
    plain, expected = plain_and_adapted(small_transformer(), theirs)
    assert distance(with_bank(small_transformer(), adapter), expected) < 1e-5
    assert distance(plain, expected) > 0.05


def test_what_diffusers_saved_with_several_ranks_and_no_alpha_is_read_with_its_effect(tmp_path: Path) -> None:
    """Without alphas every layer has scale 1, to diffusers and to ComfyUI."""
    transformer = small_transformer()
    layers = {}
    for rank, names in ((4, ("attn.to_q",)), (2, ("attn.to_k", "attn.to_v"))):
        bank = AdapterBank(transformer, slots=1, rank=rank, targets=names)
        adapter = random_adapter(bank, transformer, rank=rank, alpha=rank, seed=3)
        bank.remove()
        for path, (down, up) in adapter.weights.items():
            layers[f"{path}.lora_A.weight"], layers[f"{path}.lora_B.weight"] = down, up
    StableDiffusion3Pipeline.save_lora_weights(tmp_path, transformer_lora_layers=layers)
    expected = with_bank(small_transformer(), load_adapter(tmp_path))
    transformer.load_lora_adapter(tmp_path, weight_name=WEIGHTS_NAME)
    _, found = plain_and_adapted(transformer, transformer)
    assert distance(found, expected) < 1e-5


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4.*changes the base"),
        ({"rank_pattern": {"(a+)+$": 2}}, "not a regular expression"),
        ({"rank_pattern": ["attn.to_q"]}, "expected an object"),
        ({"rank_pattern": {"attn.to_q": 0}}, "attn.to_q 0; expected a rank"),
        ({"rank_pattern": {"attn.to_q": 2}}, r"says rank 2, its weights say 4 \(layer .*attn.to_q\)"),
        ({"alpha_pattern": {"attn.to_q": True}}, "attn.to_q True; expected a number"),
        (
            {"alpha_pattern": {"attn.to_q": -2}},
            r"alpha is -2.0; it must be a positive number \(layer .*attn.to_q\)",
        ),
        ({"lora_alpha": 10**400}, "lora_alpha inf"),
        ({"r": "4"}, "r 4; expected a rank of at least 1"),
    ],
)
def test_a_configuration_that_cannot_be_honoured_is_refused(
    tmp_path: Path, config: dict[str, object], names: str
) -> None:
    transformer = small_transformer()
    file = export_adapter(adapter_for(transformer, "sd3", rank=4, alpha=6.0), tmp_path, "peft")
    save_file(load_file(file), file)
    stored = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**stored, **config}))
    with pytest.raises(AdapterError, match=f"{PEFT_WEIGHTS_NAME}: .*{names}"):
        load_adapter(tmp_path)


SMALL = Adapter(2, 3.0, {"proj_out": (torch.ones(2, 4), torch.ones(4, 2))})


def test_every_format_has_its_own_kind_of_destination(tmp_path: Path) -> None:
    assert export_adapter(SMALL, tmp_path / "a", "diffusers") == tmp_path / "a" / WEIGHTS_NAME
    assert export_adapter(SMALL, tmp_path / "b", "peft") == tmp_path / "b" / PEFT_WEIGHTS_NAME
    file = tmp_path / "new folder" / "c.safetensors"
    assert export_adapter(SMALL, file, "comfyui") == file
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "adapter_config.json",
        PEFT_WEIGHTS_NAME,
    ]
    with pytest.raises(
        AdapterError, match="'kohya' is no format of adapters; expected one of diffusers, peft, comfyui"
    ):
        export_adapter(SMALL, tmp_path / "d", cast(AdapterFormat, "kohya"))
    folders: tuple[AdapterFormat, ...] = ("diffusers", "peft")
    for to in folders:
        with pytest.raises(AdapterError, match=rf"d\.safetensors: the format {to} is a folder"):
            export_adapter(SMALL, tmp_path / "d.safetensors", to)
    with pytest.raises(AdapterError, match="the format comfyui is one file"):
        export_adapter(SMALL, tmp_path / "d", "comfyui")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "new folder"]


def test_two_formats_do_not_share_a_folder(tmp_path: Path) -> None:
    save_adapter(SMALL, tmp_path / "a")
    with pytest.raises(AdapterError, match=f"holds an adapter in another format, {WEIGHTS_NAME}"):
        export_adapter(SMALL, tmp_path / "a", "peft")
    export_adapter(SMALL, tmp_path / "b", "peft")
    with pytest.raises(AdapterError, match=f"holds an adapter in another format, {PEFT_WEIGHTS_NAME}"):
        save_adapter(SMALL, tmp_path / "b")
    (tmp_path / "a" / PEFT_WEIGHTS_NAME).write_bytes((tmp_path / "b" / PEFT_WEIGHTS_NAME).read_bytes())
    with pytest.raises(AdapterError, match="holds both"):
        load_adapter(tmp_path / "a")
    assert_identical(load_adapter(tmp_path / "a" / PEFT_WEIGHTS_NAME), SMALL.folded())


def test_headers_of_any_size_are_refused_and_not_written(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    for length, names in (
        (9 * 1024**2, "its header of 9,437,184 bytes is more"),
        (2**63, "not readable as safetensors"),
    ):
        file.write_bytes(length.to_bytes(8, "little") + b" " * (10 * 1024**2))
        with pytest.raises(AdapterError, match=rf"lora\.safetensors: {names}"):
            load_adapter(file)
    with pytest.raises(AdapterError, match=r"header would take .* shorten its metadata"):
        adapter_bytes(Adapter(2, 3.0, SMALL.weights, metadata={"notes": "n" * 9 * 1024**2}))
    file.write_bytes(b"")
    with pytest.raises(AdapterError, match="not readable as safetensors"):
        load_adapter(file)
