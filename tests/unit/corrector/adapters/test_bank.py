"""AdapterBank against PEFT, which is the reference, and against the plain base."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from diffusers import SD3Transformer2DModel
from peft import LoraConfig
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor

from corrector.adapters import SD3_TARGETS, Adapter, AdapterBank, AdapterError
from tests.support.small_banks import (
    LAYOUTS,
    RANKS_AND_ALPHAS,
    SD35_TARGETS,
    distance,
    filled_bank,
    predict,
    random_adapter,
)
from tests.support.small_sd3 import Variant, small_transformer, transformer_inputs


def peft_model(adapter: Adapter, variant: Variant, dtype: torch.dtype) -> SD3Transformer2DModel:
    """The same base with ``adapter`` in PEFT's own layers, trainable."""
    transformer = small_transformer(variant).to(dtype)
    config = LoraConfig(r=adapter.rank, lora_alpha=adapter.alpha, target_modules=sorted(adapter.weights))
    transformer.add_adapter(config)
    with torch.no_grad():
        for path, (down, up) in adapter.weights.items():
            layer = transformer.get_submodule(path)
            assert isinstance(layer, LoraLayer)
            layer.lora_A["default"].weight.copy_(down)
            layer.lora_B["default"].weight.copy_(up)
    return transformer


def take(inputs: dict[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in inputs.items()}


@pytest.mark.parametrize(
    ("variant", "index", "dtype", "static"),
    [
        *(("sd35", index, torch.float64, static) for index in LAYOUTS.values() for static in (False, True)),
        ("sd35", LAYOUTS["the base between"], torch.float32, False),
        ("sd3", LAYOUTS["the base between"], torch.float64, False),
        ("sd3", LAYOUTS["no common length"], torch.float64, True),
    ],
    ids=str,
)
def test_predictions_and_gradients_are_those_of_peft(
    variant: Variant, index: list[int], dtype: torch.dtype, static: bool
) -> None:
    """Every row against its adapter alone in PEFT; tolerances are relative to the norm."""
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    transformer = small_transformer(variant).to(dtype)
    targets = SD35_TARGETS if variant == "sd35" else SD3_TARGETS
    bank = filled_bank(transformer, trainable=True, targets=targets, dtype=dtype, static=static)
    inputs = {name: value.to(dtype) for name, value in transformer_inputs(len(index)).items()}
    cotangent = torch.randn(inputs["hidden_states"].shape, generator=torch.Generator().manual_seed(9)).to(
        dtype
    )
    with bank.rows(index):
        predicted = predict(transformer, inputs)
        (predicted * cotangent).sum().backward()
    with torch.no_grad(), bank.rows(index):
        assert distance(predict(transformer, inputs), predicted) <= tolerance

    stacked = dict(bank.named_parameters())
    for slot, (rank, _) in RANKS_AND_ALPHAS.items():
        rows = [row for row, named in enumerate(index) if named == slot]
        if not rows:
            assert all(
                parameter.grad is not None and not parameter.grad[slot].any()
                for parameter in stacked.values()
            )
            continue
        reference = peft_model(bank.export(slot), variant, dtype)
        expected = predict(reference, take(inputs, rows))
        assert distance(predicted[rows], expected) <= tolerance
        (expected * cotangent[rows]).sum().backward()
        for path in bank.targets:
            layer = reference.get_submodule(path)
            down, up = stacked[f"{path}.lora_A"].grad, stacked[f"{path}.lora_B"].grad
            assert down is not None
            assert up is not None
            assert distance(down[slot, :rank], layer.lora_A["default"].weight.grad) <= tolerance, path
            assert distance(up[slot, :, :rank], layer.lora_B["default"].weight.grad) <= tolerance, path


@pytest.mark.parametrize("variant", ["sd3", "sd35"])
@pytest.mark.parametrize("index", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("graph", [True, False], ids=["autograd", "no_grad"])
def test_base_rows_are_bit_equal_to_the_plain_base(variant: Variant, index: list[int], graph: bool) -> None:
    index = [*index, 0]
    transformer = small_transformer(variant)
    inputs = transformer_inputs(len(index))
    with torch.no_grad():
        plain = predict(transformer, inputs)
    bank = filled_bank(transformer, trainable=True)
    with torch.set_grad_enabled(graph), bank.rows(index):
        mixed = predict(transformer, inputs)
    base_rows = [row for row, slot in enumerate(index) if slot == 0]
    adapted = [row for row, slot in enumerate(index) if slot]
    assert torch.equal(mixed[base_rows], plain[base_rows])
    assert (mixed[adapted] - plain[adapted]).abs().amax(dim=(1, 2, 3)).min() > 0.05


def test_a_choice_of_slots_made_again_after_many_others_predicts_the_same() -> None:
    transformer, inputs = small_transformer(), transformer_inputs(4)
    bank = filled_bank(transformer, trainable=False)
    with torch.no_grad(), bank.rows([1, 2, 3, 0]):
        expected = predict(transformer, inputs)
    for index in product(range(4), repeat=4):  # far more than the bank keeps plans for
        with bank.rows(index):
            pass
    with torch.no_grad(), bank.rows([1, 2, 3, 0]):
        assert torch.equal(predict(transformer, inputs), expected)


def test_only_adapter_weights_get_gradients_and_padding_stays_zero_in_training() -> None:
    transformer = small_transformer()
    bank = AdapterBank(transformer, slots=2, rank=8, trainable=True)
    bank.initialise(1, rank=3, alpha=6, seed=0)
    bank.initialise(2, rank=8, seed=1)
    optimiser = torch.optim.AdamW(bank.parameters(), lr=1e-2, weight_decay=1e-2)
    inputs = transformer_inputs(4)
    losses = []
    for _ in range(5):
        with bank.rows([1, 1, 2, 2]):
            loss = predict(transformer, inputs).square().mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.99 * losses[0]
    assert all(parameter.grad is None for parameter in transformer.parameters())
    for name, parameter in bank.named_parameters():
        padding = parameter[1, 3:] if name.endswith("lora_A") else parameter[1, :, 3:]
        assert not padding.any(), name
        assert not parameter[0].any(), name
    trained = bank.export(1).weights["transformer_blocks.1.attn.to_q"]
    assert all(weight.any() for weight in trained)


def test_initialisation_is_peft_s_and_depends_on_the_seed_alone() -> None:
    transformer = small_transformer()
    bank = AdapterBank(transformer, slots=2, rank=8, trainable=True)
    bank.initialise(1, rank=4, seed=5)
    bank.initialise(2, rank=4, seed=5)
    one, two = bank.export(1), bank.export(2)
    for path, (down, up) in one.weights.items():
        assert torch.equal(down, two.weights[path][0])
        assert not up.any()
        bound = 1 / math.sqrt(down.shape[1])  # kaiming_uniform with a = sqrt(5)
        assert 0.9 * bound < down.abs().max() <= bound
    assert one.alpha == 4.0
    bank.initialise(2, rank=4, seed=6)
    assert not torch.equal(bank.export(2).weights[bank.targets[0]][0], one.weights[bank.targets[0]][0])


def test_outside_rows_and_after_remove_the_transformer_is_the_plain_base() -> None:
    transformer = small_transformer()
    names = [name for name, _ in transformer.named_parameters()]
    inputs = transformer_inputs(2)
    with torch.no_grad():
        plain = predict(transformer, inputs)
        bank = filled_bank(transformer, trainable=False)
        assert [name for name, _ in transformer.named_parameters()] == names
        assert torch.equal(predict(transformer, inputs), plain)
        with bank.rows([1, 1]):
            with bank.rows([0, 0]):
                assert torch.equal(predict(transformer, inputs), plain)
            assert not torch.allclose(predict(transformer, inputs), plain)
            bank.remove()
            assert torch.equal(predict(transformer, inputs), plain)


def test_export_returns_what_was_loaded() -> None:
    transformer = small_transformer()
    bank = AdapterBank(transformer, slots=2, rank=8)
    adapter = random_adapter(bank, transformer, rank=3, alpha=4.5, seed=0)
    bank.load(2, random_adapter(bank, transformer, rank=8, alpha=8, seed=1))
    bank.load(2, adapter)
    exported = bank.export(2, prompt="a person lying on the grass")
    assert (exported.rank, exported.alpha) == (3, 4.5)
    assert exported.metadata == {"prompt": "a person lying on the grass"}
    for path, (down, up) in adapter.weights.items():
        assert torch.equal(exported.weights[path][0], down)
        assert torch.equal(exported.weights[path][1], up)


def test_gradient_checkpointing_gives_the_same_gradients() -> None:
    gradients = []
    for checkpointing in (False, True):
        transformer = small_transformer()
        bank = filled_bank(transformer, trainable=True)
        if checkpointing:
            transformer.enable_gradient_checkpointing()
            transformer.train()
        with bank.rows([1, 2, 0]):
            predict(transformer, transformer_inputs(3)).square().sum().backward()
        gradients.append([parameter.grad for parameter in bank.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.equal(plain, checkpointed)


def test_bfloat16_base_keeps_float32_adapters() -> None:
    transformer = small_transformer().to(torch.bfloat16)
    bank = filled_bank(transformer, trainable=True)
    inputs = {name: value.to(torch.bfloat16) for name, value in transformer_inputs(3).items()}
    with bank.rows([1, 2, 3]):
        prediction = predict(transformer, inputs)
        prediction.float().square().sum().backward()
    assert prediction.dtype == torch.bfloat16
    assert transformer.dtype == torch.bfloat16
    assert all(parameter.dtype == torch.float32 for parameter in bank.parameters())
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in bank.parameters()[:2])


Spoil = Callable[[dict[str, tuple[Tensor, Tensor]], str], Adapter]


def _without(weights: dict[str, tuple[Tensor, Tensor]], path: str) -> Adapter:
    return Adapter(4, 4.0, {key: pair for key, pair in weights.items() if key != path})


def _with_extra(weights: dict[str, tuple[Tensor, Tensor]], path: str) -> Adapter:
    return Adapter(4, 4.0, {**weights, "transformer_blocks.9.attn.to_q": weights[path]})


def _wrong_width(weights: dict[str, tuple[Tensor, Tensor]], path: str) -> Adapter:
    return Adapter(4, 4.0, {**weights, path: (weights[path][0][:, :-1], weights[path][1])})


def _transposed(weights: dict[str, tuple[Tensor, Tensor]], path: str) -> Adapter:
    return Adapter(4, 4.0, {**weights, path: (weights[path][0], weights[path][1].T)})


def _nan(weights: dict[str, tuple[Tensor, Tensor]], path: str) -> Adapter:
    down = weights[path][0].clone()
    down[1, 2] = torch.nan
    return Adapter(4, 4.0, {**weights, path: (down, weights[path][1])})


def _infinite(weights: dict[str, tuple[Tensor, Tensor]], path: str) -> Adapter:
    return Adapter(4, 4.0, {**weights, path: (weights[path][0], weights[path][1] / 0)})


def _integers(weights: dict[str, tuple[Tensor, Tensor]], path: str) -> Adapter:
    return Adapter(4, 4.0, {**weights, path: (weights[path][0].long(), weights[path][1])})


def _other_base(weights: dict[str, tuple[Tensor, Tensor]], path: str) -> Adapter:
    return Adapter(4, 4.0, weights, base_revision="another")


def _rank_zero(weights: dict[str, tuple[Tensor, Tensor]], path: str) -> Adapter:
    return Adapter(0, 4.0, {key: (down[:0], up[:, :0]) for key, (down, up) in weights.items()})


def _rank_above_bank(weights: dict[str, tuple[Tensor, Tensor]], path: str) -> Adapter:
    doubled = {key: (torch.cat([a, a, a]), torch.cat([b, b, b], 1)) for key, (a, b) in weights.items()}
    return Adapter(12, 4.0, doubled)


def _alpha(value: float) -> Spoil:
    return lambda weights, path: Adapter(4, value, weights)


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (_without, "blocks.1.attn.to_k"),
        (_with_extra, "blocks.9.attn.to_q"),
        (_wrong_width, "blocks.1.attn.to_k.lora_A"),
        (_transposed, "blocks.1.attn.to_k.lora_B"),
        (_nan, "blocks.1.attn.to_k.lora_A"),
        (_infinite, "blocks.1.attn.to_k.lora_B"),
        (_integers, "blocks.1.attn.to_k.lora_A"),
        (_other_base, "another"),
        (_rank_zero, "rank is 0"),
        (_rank_above_bank, "rank 12"),
        (_alpha(0.0), "alpha is 0"),
        (_alpha(-1.0), "alpha is -1"),
        (_alpha(math.nan), "alpha is nan"),
    ],
)
def test_a_bad_adapter_is_refused_before_it_touches_a_slot(spoil: Spoil, names: str) -> None:
    transformer = small_transformer()
    bank = AdapterBank(transformer, slots=2, rank=8, base_revision="this")
    good = random_adapter(bank, transformer, rank=4, alpha=4, seed=0)
    bank.load(1, good)
    before = [parameter.clone() for parameter in bank.parameters()]
    with pytest.raises(AdapterError, match=names):
        bank.load(1, spoil(dict(good.weights), "transformer_blocks.1.attn.to_k"))
    assert all(torch.equal(old, new) for old, new in zip(before, bank.parameters(), strict=True))
    assert bank.export(1).rank == 4


def test_wrong_use_is_refused_with_the_reason() -> None:
    transformer = small_transformer()
    bank = AdapterBank(transformer, slots=2, rank=4)
    bank.initialise(1, rank=2)
    with pytest.raises(AdapterError, match=r"3 rows, but rows\(\) named slots for 2"), bank.rows([1, 1]):
        predict(transformer, transformer_inputs(3))
    with pytest.raises(AdapterError, match=r"3 rows, but rows\(\) named slots for 2"), bank.rows([0, 0]):
        predict(transformer, transformer_inputs(3))
    with pytest.raises(AdapterError, match="slot 2 cannot change inside rows"), bank.rows([1]):
        bank.initialise(2, rank=2)
    with pytest.raises(AdapterError, match="slot 0 is the base"):
        bank.initialise(0, rank=2)
    with pytest.raises(AdapterError, match="slot 3 does not exist"):
        bank.unload(3)
    with pytest.raises(AdapterError, match=r"rank 5 is outside 1\.\.4"):
        bank.initialise(1, rank=5)
    for index in ([1, 2], [3], [-1]):
        with pytest.raises(AdapterError, match="slot"), bank.rows(index):
            pass
    bank.unload(1)
    with pytest.raises(AdapterError, match="slot 1 is empty"), bank.rows([1]):
        pass
    with pytest.raises(AdapterError, match=r"no module of this transformer ends in attn\.to_z"):
        AdapterBank(transformer, slots=1, rank=1, targets=["attn.to_q", "attn.to_z"])
