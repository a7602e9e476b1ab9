"""A base in S3 is fetched part by part into the cache folder, once per machine, and is the base that was put there."""

import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from corrector.base import load_text_encoders, load_transformer, load_vae, resolve_base
from corrector.errors import UserError
from tests.support.faulty_proxy import FaultyProxy
from tests.support.original_layout import write_single_file
from tests.support.s3 import upload

# Another process, which fetches the same part once it is told to, and says what becomes of its lock.
FETCH = """
import logging, pickle, sys
spec = pickle.loads(bytes.fromhex(sys.argv[1]))
logging.getLogger("filelock").addHandler(logging.StreamHandler(sys.stdout))
logging.getLogger("filelock").setLevel(logging.DEBUG)
print("ready", flush=True)
sys.stdin.readline()
print(spec.component("transformer"))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def stored(bucket: str, small_sd3: Path, cache: Path) -> str:
    """URL of the small base, with another one beside it whose name begins with the same letters."""
    upload(small_sd3, f"s3://{bucket}/models/sd3")
    upload(small_sd3 / "model_index.json", f"s3://{bucket}/models/sd35/model_index.json")
    return f"s3://{bucket}/models/sd3"


def fetched(cache: Path) -> list[str]:
    """Parts whose weights are in the cache folder."""
    return sorted(path.parent.name for path in (cache / "bases").rglob("*.safetensors"))


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    weights = other.state_dict()
    return all(torch.equal(tensor, weights[name]) for name, tensor in one.state_dict().items())


def test_a_stage_downloads_only_the_parts_that_it_needs(stored: str, cache: Path, small_sd3: Path) -> None:
    spec = resolve_base(stored)
    assert (spec.name, spec.resolution, spec.num_inference_steps) == ("small-sd3", 16, 4)
    assert (spec.folder / "tokenizer" / "tokenizer_config.json").is_file()
    assert fetched(cache) == []
    assert same_weights(load_transformer(spec), load_transformer(resolve_base(str(small_sd3))))
    assert fetched(cache) == ["transformer"]
    load_vae(spec)
    load_text_encoders(spec)
    assert fetched(cache) == ["text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae"]


def test_the_variant_fp16_is_fetched_where_a_part_has_no_other_weights(
    bucket: str, cache: Path, small_sd3: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(small_sd3, tmp_path / "base"))
    only, beside = (base / part / "diffusion_pytorch_model.safetensors" for part in ("vae", "transformer"))
    only.rename(only.with_name("diffusion_pytorch_model.fp16.safetensors"))
    shutil.copy(beside, beside.with_name("diffusion_pytorch_model.fp16.safetensors"))
    upload(base, f"s3://{bucket}/half")

    spec = resolve_base(f"s3://{bucket}/half")
    load_vae(spec)
    load_transformer(spec)

    names = sorted(path.name for path in (cache / "bases").rglob("*.safetensors"))
    assert names == ["diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.safetensors"]


def test_another_machine_fetches_for_itself_and_not_what_was_put_there_since(
    stored: str, small_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = resolve_base(stored)
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "elsewhere"))
    sent: Any = pickle.loads(pickle.dumps(spec))
    load_vae(sent)
    assert sent.folder.is_relative_to(tmp_path / "elsewhere")
    other = Path(shutil.copytree(small_sd3, tmp_path / "other"))
    (weights,) = (other / "transformer").glob("*.safetensors")
    save_file({name: tensor + 1 for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    upload(weights, f"{stored}/transformer/{weights.name}")
    with pytest.raises(UserError, match=f"{stored}: changed while it was in use"):
        load_transformer(sent)
    again = resolve_base(stored)
    assert again.revision != spec.revision
    assert same_weights(load_transformer(again), load_transformer(resolve_base(str(other))))


def test_processes_that_want_the_same_part_share_one_download(
    stored: str, cache: Path, small_sd3: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = resolve_base(stored)
    size = sum(file.stat().st_size for file in (small_sd3 / "transformer").iterdir())
    with FaultyProxy(s3.meta.endpoint_url) as proxy, ThreadPoolExecutor(1) as pool:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        other = subprocess.Popen(
            [sys.executable, "-c", FETCH, pickle.dumps(spec).hex()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert other.stdin is not None and other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        proxy.stall(after=size // 2)
        here = pool.submit(spec.component, "transformer")
        assert proxy.stalled.wait(60)
        other.stdin.write("\n")
        other.stdin.flush()
        assert "not acquired" in next(line for line in other.stdout if "acquired" in line)
        proxy.mend()
        there, _ = other.communicate(timeout=100)
        assert there.endswith(f"\n{here.result(60)}\n")
    assert size < proxy.passed < 2 * size
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    load_transformer(spec)


def test_a_single_file_in_s3_is_the_one_on_disk(
    bucket: str, cache: Path, small_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_single_file(small_sd3, tmp_path / "one.safetensors", vae=True)
    upload(file, f"s3://{bucket}/one.safetensors")
    spec, local = (
        resolve_base(f"{each}#{small_sd3}") for each in (f"s3://{bucket}/one.safetensors", str(file))
    )
    assert spec.revision == local.revision
    assert spec.name == local.name == "one"
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "elsewhere"))
    assert same_weights(load_transformer(spec), load_transformer(local))
    assert same_weights(load_vae(spec), load_vae(local))


def test_what_is_not_a_base_in_s3_is_refused(
    bucket: str, cache: Path, small_sd3: Path, tmp_path: Path
) -> None:
    upload(small_sd3 / "model_index.json", f"s3://{bucket}/model_index.json")
    with pytest.raises(UserError, match="transformer is missing"):
        resolve_base(f"s3://{bucket}")
    with pytest.raises(UserError, match=f"s3://{bucket}/nothing at .*: nothing is there"):
        resolve_base(f"s3://{bucket}/nothing")
    with pytest.raises(UserError, match="a pickle can run any code"):
        resolve_base(f"s3://{bucket}/model.ckpt")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    upload(broken, f"s3://{bucket}/broken.safetensors")
    with pytest.raises(UserError, match=r"broken\.safetensors: not a whole safetensors file"):
        resolve_base(f"s3://{bucket}/broken.safetensors#embedded")
