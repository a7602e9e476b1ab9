"""A base is found by name, folder or hub id, its parts load alone, and what is wrong with one is said
plainly."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file, save_file

from corrector.base import (
    check_transformer,
    load_scheduler,
    load_text_encoders,
    load_transformer,
    load_vae,
    resolve_base,
)
from corrector.base.revision import folder_revision
from corrector.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(small_sd3: Path, tmp_path: Path) -> Path:
    """A copy of the small base that a test may spoil."""
    return Path(shutil.copytree(small_sd3, tmp_path / "base"))


def test_a_folder_s_settings_come_from_base_json(small_sd3: Path) -> None:
    spec = resolve_base(str(small_sd3))
    assert spec.folder == small_sd3
    assert (spec.name, spec.resolution, spec.max_sequence_length) == ("small-sd3", 16, 12)
    assert (spec.num_inference_steps, spec.guidance_scale) == (4, 3.0)
    assert (spec.latent_channels, spec.vae_scale_factor) == (4, 2)


def test_the_embedded_base_is_found_by_name() -> None:
    spec = resolve_base("embedded")
    assert (spec.reference, spec.name, spec.resolution) == ("embedded", "embedded", 64)
    assert spec.revision == resolve_base(str(spec.folder)).revision


def test_without_base_json_the_settings_are_those_of_sd3(folder: Path) -> None:
    (folder / "base.json").unlink()
    spec = resolve_base(str(folder))
    assert (spec.name, spec.resolution, spec.max_sequence_length) == ("base", 16, 256)
    assert (spec.num_inference_steps, spec.guidance_scale) == (28, 7.0)


def test_the_revision_follows_the_weights_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    before = resolve_base(str(folder)).revision
    assert resolve_base(str(shutil.copytree(folder, tmp_path / "elsewhere"))).revision == before
    settings = json.loads((folder / "base.json").read_text())
    (folder / "base.json").write_text(json.dumps(settings | {"num_inference_steps": 9}))
    (folder / "README.md").write_text("a model card")
    (folder / "sd3_medium.safetensors").write_bytes(b"the same weights in one file")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "download.json").write_text("{}")
    assert resolve_base(str(folder)).revision == before
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    payload = bytearray(weights.read_bytes())
    payload[-1] ^= 1
    weights.write_bytes(payload)
    assert resolve_base(str(folder)).revision != before


def test_the_revision_needs_no_writable_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = folder_revision(folder)
    assert list((tmp_path / "cache" / "digests").iterdir())
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "digests").write_text("not a folder")
    monkeypatch.setenv("CORRECTOR_CACHE", str(blocked))
    assert folder_revision(folder) == expected


def test_a_hub_id_is_read_from_the_local_cache(
    small_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "hub" / "models--someone--small-sd3"
    shutil.copytree(small_sd3, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    spec = resolve_base("someone/small-sd3")
    assert spec.revision == commit
    assert spec.name == "small-sd3"
    with pytest.raises(UserError, match="found neither on the hub nor in its local cache"):
        resolve_base("someone/else")


def test_resolving_loads_no_model_library(small_sd3: Path, tmp_path: Path) -> None:
    transformer = small_sd3 / "transformer" / "diffusion_pytorch_model.safetensors"
    file = shutil.copy(transformer, tmp_path / "one.safetensors")
    program = (
        "import sys; from corrector.base import resolve_base;"
        f"resolve_base({str(small_sd3)!r}); resolve_base({f'{file}#{small_sd3}'!r}, precision='nf4');"
        "slow = {'accelerate', 'bitsandbytes', 'boto3', 'diffusers', 'huggingface_hub', 'transformers'};"
        "print(sorted(slow & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_parts_load_alone_frozen_and_in_the_dtype_asked_for(small_sd35: Path, dtype: torch.dtype) -> None:
    spec = resolve_base(str(small_sd35))
    pipeline = StableDiffusion3Pipeline.from_pretrained(small_sd35, local_files_only=True, torch_dtype=dtype)
    for part, expected in (
        (load_transformer(spec, dtype=dtype), pipeline.transformer),
        (load_vae(spec, dtype=dtype), pipeline.vae),
    ):
        assert part.dtype == dtype
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())
        weights = expected.state_dict()
        assert all(torch.equal(value, weights[name]) for name, value in part.state_dict().items())
    assert load_scheduler(spec).config.shift == 3.0


def test_half_precision_files_load_as_float32_when_asked(small_sd3: Path, tmp_path: Path) -> None:
    StableDiffusion3Pipeline.from_pretrained(
        small_sd3, local_files_only=True, torch_dtype=torch.float16
    ).save_pretrained(tmp_path / "half")
    spec = resolve_base(str(tmp_path / "half"))
    assert load_transformer(spec).dtype == torch.float32
    assert load_vae(spec).dtype == torch.float32
    assert load_text_encoders(spec).encode(["a dog"]).prompt.dtype == torch.float32


def test_parts_that_are_not_asked_for_need_not_load(folder: Path) -> None:
    spec = resolve_base(str(folder))
    (folder / "text_encoder_3" / "model.safetensors").write_bytes(b"damaged")
    load_transformer(spec)
    load_vae(spec)
    with pytest.raises(UserError, match="text_encoder_3 does not load"):
        load_text_encoders(spec)


def test_a_part_that_lacks_weights_is_refused_instead_of_left_random(folder: Path) -> None:
    spec = resolve_base(str(folder))
    for part, name, load in (
        ("transformer", "diffusion_pytorch_model.safetensors", load_transformer),
        ("text_encoder", "model.safetensors", load_text_encoders),
    ):
        weights = load_file(folder / part / name)
        first = sorted(weights)[0]
        save_file(
            {key: value for key, value in weights.items() if key != first},
            folder / part / name,
            {"format": "pt"},
        )
        with pytest.raises(UserError, match=rf"{part} lacks 1 weights of .*{first}"):
            load(spec)


def test_a_pickle_is_never_loaded(folder: Path) -> None:
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save({}, folder / "vae" / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(
        UserError, match=r"vae: has diffusion_pytorch_model\.bin but no safetensors; a pickle can"
    ):
        load_vae(resolve_base(str(folder)))


def test_a_weight_that_is_not_finite_is_named_with_its_file(folder: Path) -> None:
    check_transformer(resolve_base(str(folder)))
    for part, file, load in (
        ("transformer", "diffusion_pytorch_model.safetensors", load_transformer),
        ("transformer", "diffusion_pytorch_model.safetensors", check_transformer),
        ("vae", "diffusion_pytorch_model.safetensors", load_vae),
        ("text_encoder_3", "model.safetensors", load_text_encoders),
    ):
        weights = load_file(folder / part / file)
        spoiled = sorted(name for name, tensor in weights.items() if tensor.ndim == 2)[-1]
        weights[spoiled][0, 1] = torch.nan if part == "vae" else -torch.inf
        save_file(weights, folder / part / file, {"format": "pt"})
        with pytest.raises(UserError, match=rf"{spoiled} in .*{part}/{file} holds a NaN or an infinity"):
            load(resolve_base(str(folder)))


def test_shards_are_one_transformer_and_each_must_be_whole(folder: Path) -> None:
    spec = resolve_base(str(folder))
    whole = load_transformer(spec)
    part = folder / "transformer"
    (part / "diffusion_pytorch_model.safetensors").unlink()
    whole.save_pretrained(part, max_shard_size="100KB")
    shards = sorted(part.glob("*-of-*.safetensors"))
    assert len(shards) > 1
    weights = whole.state_dict()
    assert all(torch.equal(each, weights[name]) for name, each in load_transformer(spec).state_dict().items())
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[:-10])
    with pytest.raises(UserError, match=rf"{shards[1].name}: not a whole safetensors file"):
        load_transformer(spec)
    shards[1].unlink()
    with pytest.raises(UserError, match=rf"{shards[1].name}: missing, although the index beside it names it"):
        load_transformer(spec)
    index = part / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"proj_out.bias": "../vae/diffusion_pytorch_model.safetensors"}})
    )
    with pytest.raises(UserError, match="expected safetensors files in its own folder"):
        load_transformer(spec)


def test_weights_of_another_shape_are_refused_before_any_is_read(folder: Path) -> None:
    config = folder / "transformer" / "config.json"
    stored = json.loads(config.read_text())
    config.write_text(json.dumps(stored | {"pooled_projection_dim": 64}))
    with pytest.raises(
        UserError, match=r"linear_1\.weight has the shape \[32, 28\], but .* asks for \[32, 64\]"
    ):
        load_transformer(resolve_base(str(folder)))
    config.write_text(json.dumps(stored | {"num_layers": 4}))
    with pytest.raises(
        UserError, match=r"lacks \d+ weights of a SD3Transformer2DModel, transformer_blocks\.2"
    ):
        load_transformer(resolve_base(str(folder)))
    config.write_text(json.dumps(stored | {"_class_name": "FluxTransformer2DModel"}))
    with pytest.raises(UserError, match="its transformer is a FluxTransformer2DModel"):
        resolve_base(str(folder))


def test_a_spec_means_the_same_from_any_working_folder_and_says_where_a_folder_is_missing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    spec = pickle.loads(pickle.dumps(resolve_base(folder.name)))
    monkeypatch.chdir("/")
    assert load_vae(spec).config.latent_channels == 4
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{folder}: not on this machine; put the base on storage"):
        load_vae(spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 0}, "resolution is 0; expected a whole number from 1 to 8192"),
        ({"max_sequence_length": 513}, "max_sequence_length is 513"),
        ({"guidance_scale": "7"}, "guidance_scale is '7'; expected a number"),
        ({"resolutoin": 64}, "unknown setting 'resolutoin'"),
    ],
)
def test_wrong_settings_are_named(folder: Path, change: dict[str, object], message: str) -> None:
    (folder / "base.json").write_text(json.dumps(json.loads((folder / "base.json").read_text()) | change))
    with pytest.raises(UserError, match=f"base.json: {message}"):
        resolve_base(str(folder))


def test_what_is_not_a_base_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model_index\.json"):
        resolve_base(str(tmp_path / "nowhere" / "at" / "all"))
    shutil.rmtree(folder / "tokenizer_2")
    with pytest.raises(UserError, match="tokenizer_2 is missing"):
        resolve_base(str(folder))
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(UserError, match="is a FluxPipeline"):
        resolve_base(str(folder))
    (folder / "model_index.json").write_text("{")
    with pytest.raises(UserError, match="not readable as JSON"):
        resolve_base(str(folder))
