"""Precision decides how weights are kept; what a quantised base costs is measured, and it can be trained through."""

import pickle
import sys
from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel
from safetensors.torch import load_file

from corrector.adapters import AdapterBank
from corrector.base import (
    BaseSpec,
    Precision,
    describe_precision,
    load_transformer,
    resolve_base,
    transformer_bytes,
)
from corrector.base.precision import is_quantised_weight
from corrector.errors import UserError
from tests.support.original_layout import changed, write_single_file
from tests.support.small_sd3 import transformer_inputs

pytest.importorskip("bitsandbytes", reason="precision nf4 needs bitsandbytes")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRECTOR_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def spec(small_sd35: Path) -> BaseSpec:
    return resolve_base(str(small_sd35), precision="nf4")


def predict(transformer: SD3Transformer2DModel, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    with torch.no_grad():
        inputs = {name: tensor.to(dtype) for name, tensor in transformer_inputs(3).items()}
        return transformer(**inputs).sample.float()


def dequantised(transformer: SD3Transformer2DModel, spec: BaseSpec) -> SD3Transformer2DModel:
    """An fp32 transformer with the weights that ``transformer`` stands for."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    plain = SD3Transformer2DModel.from_pretrained(spec.folder, subfolder="transformer", local_files_only=True)
    for name, module in transformer.named_modules():
        if isinstance(module, Linear4bit):
            weight = dequantize_4bit(module.weight.data, module.weight.quant_state)
            plain.get_submodule(name).weight.data = weight
    return plain.requires_grad_(False).eval()


def bytes_held(transformer: SD3Transformer2DModel) -> int:
    """Bytes of all tensors, scales and code books included."""
    total = 0
    for tensor in (*transformer.parameters(), *transformer.buffers()):
        total += tensor.nbytes
        state = getattr(tensor, "quant_state", None)
        if state is not None:
            inner = state.state2
            total += sum(each.nbytes for each in (state.absmax, state.code, state.offset))
            total += sum(each.nbytes for each in (inner.absmax, inner.code))
    return total


def test_nf4_predicts_what_its_rounded_weights_predict(spec: BaseSpec) -> None:
    quantised = load_transformer(spec)
    torch.testing.assert_close(
        predict(quantised), predict(dequantised(quantised, spec)), rtol=1e-5, atol=1e-5
    )


def test_nf4_stays_within_a_fifth_of_the_fp32_prediction(small_sd35: Path, spec: BaseSpec) -> None:
    exact = predict(load_transformer(resolve_base(str(small_sd35), precision="fp32")))
    error = (predict(load_transformer(spec)) - exact).norm() / exact.norm()
    assert 0.01 < error < 0.2


def test_attention_and_feed_forward_are_quantised_and_nothing_else(spec: BaseSpec) -> None:
    transformer = load_transformer(spec)
    modules = dict(transformer.named_modules())
    for name, module in modules.items():
        if isinstance(module, torch.nn.Linear):
            inside = name.startswith("transformer_blocks.") and "norm" not in name
            assert module.weight.dtype == (torch.uint8 if inside else torch.float32), name
            assert is_quantised_weight(f"{name}.weight", (64, 64)) == inside
    assert isinstance(modules["transformer_blocks.0.attn2.to_q"], torch.nn.Linear)
    assert not transformer.training
    assert not any(parameter.requires_grad for parameter in transformer.parameters())


def test_the_estimate_is_what_lies_in_memory(spec: BaseSpec) -> None:
    for precision in ("fp32", "bf16", "nf4"):
        each = resolve_base(spec.reference, precision=precision)
        assert transformer_bytes(each, "cpu") == bytes_held(load_transformer(each))


def test_nf4_keeps_the_embedded_base_in_less_than_half_the_memory() -> None:
    exact, quantised = (
        bytes_held(load_transformer(resolve_base("embedded", precision=each))) for each in ("fp32", "nf4")
    )
    assert quantised < 0.5 * exact


def test_a_prediction_without_gradients_does_not_end_training(spec: BaseSpec) -> None:
    transformer = load_transformer(spec)
    before = predict(transformer)
    inputs = transformer_inputs(3)
    inputs["hidden_states"].requires_grad_()
    transformer(**inputs).sample.sum().backward()
    assert torch.equal(predict(transformer), before)


def test_adapters_train_through_nf4_as_through_its_rounded_weights(spec: BaseSpec) -> None:
    quantised = load_transformer(spec)
    gradients = []
    for transformer in (quantised, dequantised(quantised, spec)):
        bank = AdapterBank(transformer, slots=2, rank=2, trainable=True)
        for slot in (1, 2):
            bank.initialise(slot, rank=2, seed=slot)
        inputs = transformer_inputs(3)
        inputs["hidden_states"].requires_grad_()
        with bank.rows([0, 1, 2]):
            transformer(**inputs).sample.square().mean().backward()
        found = [inputs["hidden_states"].grad, *(parameter.grad for parameter in bank.parameters())]
        assert all(each is not None for each in found)
        gradients.append([each for each in found if each is not None])
        bank.remove()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert any(each.abs().max() > 0 for each in gradients[0][1:])


def test_the_stated_error_is_that_of_the_weights(small_sd35: Path, spec: BaseSpec, tmp_path: Path) -> None:
    original = load_file(small_sd35 / "transformer/diffusion_pytorch_model.safetensors")
    rounded = dequantised(load_transformer(spec), spec).state_dict()
    names = [name for name, weight in original.items() if is_quantised_weight(name, weight.shape)]
    changed_by = sum((rounded[name] - original[name]).square().sum() for name in names)
    expected = (changed_by / sum(original[name].square().sum() for name in names)) ** 0.5
    cost = describe_precision(spec, "cpu")
    assert cost.weight_error == pytest.approx(float(expected), rel=1e-5)
    assert cost.bytes == transformer_bytes(spec, "cpu")
    file = write_single_file(small_sd35, tmp_path / "one.safetensors")
    single = describe_precision(resolve_base(f"{file}#{small_sd35}", precision="nf4"), "cpu")
    assert single.weight_error == pytest.approx(cost.weight_error, rel=0.02)
    assert str(cost).startswith("nf4: ")


def test_unquantised_precisions_state_what_rounding_costs(small_sd35: Path) -> None:
    assert describe_precision(resolve_base(str(small_sd35), precision="fp32"), "cpu").weight_error == 0
    bf16 = describe_precision(resolve_base(str(small_sd35), precision="bf16"), "cpu")
    assert 0.0005 < bf16.weight_error < 0.004
    assert bf16.bytes == bf16.bytes_bf16


@pytest.mark.parametrize(
    ("precision", "cpu", "cuda"),
    [
        ("auto", torch.float32, torch.bfloat16),
        ("fp32", torch.float32, torch.float32),
        ("bf16", torch.bfloat16, torch.bfloat16),
        ("nf4", torch.float32, torch.bfloat16),
    ],
)
def test_the_device_decides_where_the_precision_does_not(
    precision: Precision, cpu: torch.dtype, cuda: torch.dtype, small_sd3: Path
) -> None:
    spec = resolve_base(str(small_sd3), precision=precision)
    assert (spec.compute_dtype("cpu"), spec.compute_dtype("cuda:1")) == (cpu, cuda)
    assert load_transformer(spec).pos_embed.proj.weight.dtype == cpu


def test_results_depend_on_quantisation_and_specs_travel(small_sd3: Path) -> None:
    plain, bf16, nf4 = (resolve_base(str(small_sd3), precision=each) for each in ("auto", "bf16", "nf4"))
    assert plain.identity == bf16.identity == plain.revision == nf4.revision
    assert nf4.identity == f"{plain.revision}+nf4"
    assert pickle.loads(pickle.dumps(nf4)) == nf4


def test_an_unknown_precision_and_a_missing_library_are_named(
    small_sd3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match='precision "int8": unknown; expected one of auto, fp32, bf16, nf4'):
        resolve_base(str(small_sd3), precision="int8")  # type: ignore[arg-type]
    spec = resolve_base(str(small_sd3), precision="nf4")
    with pytest.raises(UserError, match="cannot be offloaded"):
        load_transformer(spec, offload=True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    for refused in (load_transformer, lambda each: describe_precision(each, "cpu")):
        with pytest.raises(UserError, match="pip install bitsandbytes"):
            refused(spec)


def test_a_weight_that_is_not_finite_is_found_before_it_is_quantised(
    small_sd35: Path, tmp_path: Path
) -> None:
    name = "model.diffusion_model.joint_blocks.0.context_block.attn.proj.weight"
    file = write_single_file(small_sd35, tmp_path / "one.safetensors")
    broken = load_file(file)[name]
    broken[0, 0] = torch.nan
    spec = resolve_base(f"{changed(file, {name: broken})}#{small_sd35}", precision="nf4")
    with pytest.raises(
        UserError, match=r"transformer_blocks\.0\.attn\.to_add_out\.weight in .*one\.safetensors"
    ):
        load_transformer(spec)
