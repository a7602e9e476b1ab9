"""Memory is known before anything is loaded, and a base that does not fit is refused with what would; one that is
offloaded gives the same numbers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel

from corrector.adapters import AdapterBank
from corrector.base import ensure_memory, free_memory, load_transformer, resolve_base, transformer_bytes
from corrector.errors import UserError
from tests.support.sd3_family import MODELS, Model, configuration
from tests.support.small_sd3 import Variant, transformer_inputs

GIB = 2**30


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "cache"))


def published(model: Model, small_sd3: Path, folder: Path) -> str:
    """A pipeline folder with the configuration of ``model`` and no weights of its transformer."""
    shutil.copytree(small_sd3, folder)
    shutil.rmtree(folder / "transformer")
    (folder / "transformer").mkdir()
    config = {"_class_name": "SD3Transformer2DModel", **configuration(model)}
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize("model", MODELS)
def test_sizes_of_the_published_models_need_no_weights(model: Model, small_sd3: Path, tmp_path: Path) -> None:
    reference = published(model, small_sd3, tmp_path / "base")
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(**configuration(model))
    count = sum(tensor.numel() for tensor in transformer.state_dict().values())
    sizes = {
        each: transformer_bytes(resolve_base(reference, precision=each), "cuda") for each in ("bf16", "nf4")
    }
    assert sizes["bf16"] == 2 * count
    assert transformer_bytes(resolve_base(reference), "cpu") == 4 * count
    assert 0.4 < sizes["nf4"] / sizes["bf16"] < 0.6
    block = sum(each.numel() for each in transformer.transformer_blocks[0].parameters())
    assert transformer_bytes(resolve_base(reference), "cuda", offload=True) >= 2 * block
    assert transformer_bytes(resolve_base(reference), "cuda", offload=True) < 0.2 * sizes["bf16"]


def test_what_does_not_fit_is_refused_with_the_estimate_and_what_would(
    small_sd3: Path, tmp_path: Path
) -> None:
    spec = resolve_base(published("sd3.5-large", small_sd3, tmp_path / "base"), precision="bf16")
    with pytest.raises(UserError) as caught:
        ensure_memory(spec, "cuda", free=int(11.2 * GIB))
    assert str(caught.value).endswith(
        "its transformer needs 15.2 GiB in bf16, cuda has 11.2 GiB free; "
        "use precision nf4 (7.8 GiB), offload or a larger device"
    )
    ensure_memory(spec, "cuda", free=16 * GIB)
    with pytest.raises(
        UserError, match=r"needs 15\.2 GiB in bf16, cpu has 1\.0 GiB free; use a machine with more"
    ):
        ensure_memory(spec, "cpu", free=GIB)
    with pytest.raises(
        UserError, match=r"30\.3 GiB in fp32.*use precision bf16 \(15\.2 GiB\), precision nf4"
    ):
        ensure_memory(resolve_base(spec.reference, precision="fp32"), "cuda", free=20 * GIB)


def test_loading_asks_for_memory_before_it_looks_for_weights(
    small_sd3: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = resolve_base(published("sd3.5-large", small_sd3, tmp_path / "base"))
    monkeypatch.setattr("corrector.base.memory.free_memory", lambda device: GIB)
    with pytest.raises(UserError, match=r"needs 30\.3 GiB in fp32, cpu has 1\.0 GiB free"):
        load_transformer(spec)
    assert 0 < free_memory("cpu") < 2**50


@pytest.mark.parametrize("variant", ["sd3", "sd35"])
def test_an_offloaded_base_predicts_and_trains_as_one_in_memory(
    variant: Variant, small_sd3: Path, small_sd35: Path
) -> None:
    spec = resolve_base(str(small_sd3 if variant == "sd3" else small_sd35))
    results = []
    for offload in (False, True):
        transformer = load_transformer(spec, offload=offload)
        transformer.enable_gradient_checkpointing()
        transformer.train()
        bank = AdapterBank(transformer, slots=2, rank=2, trainable=True, device=torch.device("cpu"))
        for slot in (1, 2):
            bank.initialise(slot, rank=2, seed=slot)
        inputs = transformer_inputs(3)
        inputs["hidden_states"].requires_grad_()
        with bank.rows([0, 1, 2]):
            prediction = transformer(**inputs).sample
            prediction.square().mean().backward()
        gradients = [inputs["hidden_states"].grad, *(each.grad for each in bank.parameters())]
        results.append([prediction.detach(), *(each for each in gradients if each is not None)])
        assert {each.device.type for each in transformer.parameters()} == {"meta" if offload else "cpu"}
    assert len(results[0]) == len(results[1]) > 2
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_only_the_block_that_computes_has_its_weights_on_the_device(small_sd3: Path) -> None:
    transformer = load_transformer(resolve_base(str(small_sd3)), offload=True)
    transformer.enable_gradient_checkpointing()
    transformer.train()
    blocks = list(transformer.transformer_blocks)
    present: list[list[int]] = []

    def note(*_: object) -> None:
        on_device = [each.attn.to_q.weight.device.type != "meta" for each in blocks]
        present.append([number for number, there in enumerate(on_device) if there])

    for block in blocks:
        block.attn.to_q.register_forward_hook(note)
    inputs = transformer_inputs(1)
    inputs["hidden_states"].requires_grad_()
    transformer(**inputs).sample.sum().backward()
    assert present == [[0], [1], [2], [2], [1], [0]]
