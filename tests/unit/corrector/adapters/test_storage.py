"""Where a bank keeps its weights: one tensor, packed adapters, and nothing that the transformer shows."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffusers import SD3Transformer2DModel
from torch.utils._python_dispatch import TorchDispatchMode

from corrector.adapters import AdapterBank, AdapterError
from tests.support.small_banks import RANKS_AND_ALPHAS, SD35_TARGETS, filled_bank, predict, random_adapter
from tests.support.small_sd3 import small_transformer, transformer_inputs


def test_all_weights_lie_in_one_tensor_a_slot_to_a_row() -> None:
    transformer = small_transformer()
    bank = filled_bank(transformer, trainable=False)
    assert bank.storage.shape == (4, bank.layout.size) and bank.storage.is_contiguous()
    flat = torch.cat([parameter.flatten(1) for parameter in bank.parameters()], dim=1)
    assert torch.equal(flat, bank.storage)
    for slot, (rank, _) in RANKS_AND_ALPHAS.items():
        used = bank.used(rank)
        assert used.sum() == sum(part.numel() for pair in bank.export(slot).weights.values() for part in pair)
        assert bank.storage[slot, used].all() and not bank.storage[slot, ~used].any()
    inputs = transformer_inputs(1)
    with torch.no_grad(), bank.rows([1]):
        before = predict(transformer, inputs)
        bank.storage[1] = 0
        assert not torch.allclose(predict(transformer, inputs), before)


def test_a_packed_adapter_loads_as_the_adapter_itself() -> None:
    transformer = small_transformer()
    bank = AdapterBank(transformer, slots=2, rank=8, dtype=torch.bfloat16)
    for rank in (8, 3):  # the second into a slot that was full
        adapter = random_adapter(bank, transformer, rank=rank, alpha=2.5, seed=rank)
        packed = bank.pack(adapter)
        bank.load(1, adapter)
        bank.load(2, packed)
        assert torch.equal(bank.storage[1], bank.storage[2])
        assert bank.export(2).rank == packed.rank == rank and bank.export(2).alpha == packed.alpha == 2.5
    other = AdapterBank(small_transformer(), slots=5, rank=8, dtype=torch.bfloat16)
    other.load(5, packed)
    assert torch.equal(other.storage[5], bank.storage[2])


def test_a_bank_in_the_transformer_s_dtype_predicts_the_same_to_the_bit() -> None:
    inputs = {name: value.to(torch.bfloat16) for name, value in transformer_inputs(3).items()}
    predictions = []
    for dtype in (torch.float32, torch.bfloat16):
        transformer = small_transformer().to(torch.bfloat16)
        bank = filled_bank(transformer, trainable=False, dtype=dtype)
        with torch.no_grad(), bank.rows([1, 2, 3]):
            predictions.append(predict(transformer, inputs))
    assert torch.equal(*predictions)


def test_an_adapter_packed_for_another_bank_is_refused_before_it_touches_a_slot() -> None:
    bank = AdapterBank(small_transformer(), slots=2, rank=8, base_revision="this")
    bank.initialise(1, rank=4)
    packed = bank.pack(bank.export(1))
    lower = AdapterBank(small_transformer(), slots=1, rank=4, base_revision="this")
    half = AdapterBank(small_transformer(), slots=1, rank=8, dtype=torch.bfloat16, base_revision="this")
    more = AdapterBank(small_transformer("sd35"), slots=1, rank=8, targets=SD35_TARGETS)
    for other in (lower, half, more):
        with pytest.raises(AdapterError, match="another rank, dtype or transformer; pack it with this bank"):
            other.load(1, packed)
        assert other.occupied() == [] and not other.storage.any()
    elsewhere = AdapterBank(small_transformer(), slots=1, rank=8, base_revision="another")
    with pytest.raises(AdapterError, match="base revision this; this base is revision another"):
        elsewhere.load(1, packed)


def test_the_transformer_shows_nothing_of_the_bank_and_is_restored_whole(tmp_path: Path) -> None:
    transformer, untouched = small_transformer(), small_transformer()
    before = {path: set(vars(module)) for path, module in transformer.named_modules()}
    bank = filled_bank(transformer, trainable=True)
    assert [*transformer.state_dict()] == [*untouched.state_dict()]
    names = [[name for name, _ in model.named_parameters()] for model in (transformer, untouched)]
    assert names[0] == names[1]
    assert [path for path, _ in transformer.named_modules()] == [*before]
    transformer.save_pretrained(tmp_path)
    saved = SD3Transformer2DModel.from_pretrained(tmp_path)
    assert torch.equal(predict(saved, transformer_inputs(1)), predict(untouched, transformer_inputs(1)))
    transformer.to(torch.float64)
    assert bank.storage.dtype == bank.parameters()[0].dtype == torch.float32
    bank.remove()
    for path, module in transformer.named_modules():
        assert set(vars(module)) == before[path]
        assert not module._forward_hooks and not module._forward_pre_hooks


def test_a_transformer_carries_one_bank_at_a_time() -> None:
    transformer = small_transformer()
    first = AdapterBank(transformer, slots=1, rank=4)
    first.initialise(1, rank=4)
    with pytest.raises(AdapterError, match=r"has an adapter bank already; remove\(\) that one first"):
        AdapterBank(transformer, slots=1, rank=4)
    with first.rows([1, 1]):
        predict(transformer, transformer_inputs(2))
    first.remove()
    first.remove()
    AdapterBank(transformer, slots=1, rank=4).initialise(1, rank=4)


def test_a_bank_serves_an_offloaded_transformer_on_the_device_that_computes() -> None:
    index, inputs = [1, 0, 2], transformer_inputs(3)
    transformer = small_transformer()
    with torch.no_grad(), filled_bank(transformer, trainable=False).rows(index):
        expected = predict(transformer, inputs)
    offloaded = cpu_offload(small_transformer(), execution_device=torch.device("cpu"))
    assert next(offloaded.parameters()).is_meta
    with pytest.raises(AdapterError, match=r"meta device.*; tell the bank with device="):
        AdapterBank(offloaded, slots=3, rank=8)
    bank = AdapterBank(offloaded, slots=3, rank=8, device="cpu")
    for slot, (rank, alpha) in RANKS_AND_ALPHAS.items():
        bank.load(slot, random_adapter(bank, offloaded, rank=rank, alpha=alpha, seed=slot))
    with torch.no_grad(), bank.rows(index):
        assert torch.equal(predict(offloaded, inputs), expected)


@pytest.mark.parametrize("static", [False, True], ids=["by run", "static"])
def test_a_slot_of_nans_does_not_disturb_its_neighbours_by_a_bit(static: bool) -> None:
    index, inputs, results = [1, 2, 2, 3], transformer_inputs(4), []
    for spoilt in (False, True):
        transformer = small_transformer()
        bank = filled_bank(transformer, trainable=True, static=static)
        if spoilt:
            bank.storage[2] = torch.nan
        with bank.rows(index):
            predicted = predict(transformer, inputs)
            predicted.square().mean(dim=(1, 2, 3)).sum().backward()
        given = [parameter.grad for parameter in bank.parameters()]
        gradients = torch.cat([gradient.flatten(1) for gradient in given if gradient is not None], dim=1)
        assert predicted[1].isnan().all() == spoilt
        results.append((predicted[[0, 3]].detach(), gradients[[0, 1, 3]]))
    for clean, beside_nans in zip(*results, strict=True):
        assert torch.equal(clean, beside_nans)


class Operations(TorchDispatchMode):
    """The names of PyTorch's operations inside the ``with``."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, function: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.names.add(function.name().split(".")[0])
        return function(*args, **(kwargs or {}))


WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::index", "aten::index_put_"}
"""Reading a value back, and indexing with a mask or a Python list."""


@pytest.mark.parametrize("static", [False, True], ids=["by run", "static"])
def test_neither_loading_nor_choosing_rows_reads_from_the_device(static: bool) -> None:
    bank = filled_bank(small_transformer(), trainable=False, static=static)
    packed = bank.pack(bank.export(1))
    with Operations() as loading:
        bank.load(2, packed)
    assert loading.names <= {"aten::select", "aten::copy_", "aten::fill_"}
    with Operations() as choosing, bank.rows([3, 1, 1, 2]):
        pass
    assert choosing.names and choosing.names.isdisjoint(WAITING)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("static", [False, True], ids=["by run", "static"])
def test_the_host_does_not_wait_for_the_device(static: bool) -> None:
    transformer = small_transformer().to("cuda")
    bank = filled_bank(transformer, trainable=False, static=static)
    packed = bank.pack(bank.export(1), pin=True)
    inputs = {name: value.cuda() for name, value in transformer_inputs(3).items()}
    with torch.no_grad():
        with bank.rows([1, 0, 1]):
            predict(transformer, inputs)
        torch.cuda.set_sync_debug_mode("error")
        try:
            bank.load(2, packed)
            with bank.rows([2, 1, 3]):
                predict(transformer, inputs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
