"""The packed optimiser against torch.optim.AdamW and clip_grad_norm_, one slot at a time."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from corrector.adapters import Adapter, AdapterBank
from corrector.dreambooth.optimiser import PackedAdamW
from corrector.prompts import HyperParameters

RANK = 4
SLOTS = 3
WIDTHS = {"first": (6, 5), "second": (3, 7)}


def filled_bank(
    *, slots: int = SLOTS, rank: int = RANK, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> AdapterBank:
    """Two Linears, and in every slot an adapter whose B is not zero either."""
    linears = nn.ModuleDict({name: nn.Linear(*widths) for name, widths in WIDTHS.items()})
    bank = AdapterBank(
        linears, slots=slots, rank=rank, targets=tuple(WIDTHS), dtype=dtype, trainable=True, device=device
    )
    for slot in range(1, slots + 1):
        bank.initialise(slot, rank=rank)
        bank.storage[slot] = torch.randn(bank.layout.size, generator=torch.Generator().manual_seed(slot))
    return bank


def give_gradients(bank: AdapterBank, seed: int, size: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in bank.parameters():
        parameter.grad = size * torch.randn(parameter.shape, generator=generator)


def settings_of(slot: int) -> HyperParameters:
    return HyperParameters(
        weight_decay=0.01 * slot,
        beta1=0.8 + 0.05 * slot,
        beta2=0.99,
        epsilon=10.0**-slot,
        max_grad_norm=0.5 * slot,
    )


def test_every_slot_moves_as_adamw_and_clipping_move_it_alone() -> None:
    bank = filled_bank()
    packed, parameters = PackedAdamW(bank), bank.parameters()
    alone = {
        slot: [nn.Parameter(parameter[slot].detach().clone()) for parameter in parameters]
        for slot in (1, 2, 3)
    }
    optimisers = {}
    for slot, own in alone.items():
        settings = settings_of(slot)
        packed.configure(slot, settings)
        optimisers[slot] = torch.optim.AdamW(
            own,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            weight_decay=settings.weight_decay,
        )
    for step in range(20):
        give_gradients(bank, step, size=0.02 * step)  # below the limits at first, above them later
        rates = {1: 1e-3, 2: 1e-2 / (step + 1), 3: 5e-3}
        expected_norms = []
        for slot, own in alone.items():
            for parameter, single in zip(parameters, own, strict=True):
                assert parameter.grad is not None
                single.grad = parameter.grad[slot].clone()
            expected_norms.append(nn.utils.clip_grad_norm_(own, settings_of(slot).max_grad_norm))
            optimisers[slot].param_groups[0]["lr"] = rates[slot]
            optimisers[slot].step()
        norms = packed.step(rates)
        torch.testing.assert_close(norms, torch.stack(expected_norms), rtol=1e-6, atol=1e-7)
    for slot, own in alone.items():
        for parameter, single in zip(parameters, own, strict=True):
            torch.testing.assert_close(parameter[slot], single, rtol=1e-5, atol=1e-6)


def test_the_norm_of_a_long_gradient_is_exact() -> None:
    layers = nn.ModuleDict({"wide": nn.Linear(4096, 4096)})
    bank = AdapterBank(layers, slots=1, rank=500, targets=["wide"], trainable=True)
    bank.initialise(1, rank=500)
    packed = PackedAdamW(bank)
    give_gradients(bank, seed=0)
    packed.gather()
    exact = packed.gradients[1].double().norm().item()
    assert packed.step({1: 1e-3}).item() == pytest.approx(exact, rel=1e-6)


def test_slots_that_are_not_named_stay_bit_equal() -> None:
    bank = filled_bank()
    packed = PackedAdamW(bank)
    for slot in (1, 2, 3):
        packed.configure(slot, settings_of(slot))
    give_gradients(bank, 0)
    packed.step({1: 0.1, 2: 0.1, 3: 0.1})
    before = packed.state_of(2, 4)
    for seed in range(3):
        give_gradients(bank, seed)
        packed.step({1: 0.1, 3: 0.1})
    after = packed.state_of(2, 4)
    assert torch.equal(before.weights, after.weights) and torch.equal(before.variance, after.variance)
    assert before.updates == after.updates == 1 and packed.state_of(3, 4).updates == 4


def test_gradients_of_a_backward_reach_the_buffer() -> None:
    bank = filled_bank()
    packed, parameters = PackedAdamW(bank), bank.parameters()
    packed.configure(1, HyperParameters(max_grad_norm=1e6))
    for _ in range(2):
        for _ in range(2):  # two backward passes add up
            sum((parameter[1:2] ** 2).sum() for parameter in parameters).backward()  # type: ignore[union-attr]
        (norm,) = packed.step({1: 0.0})
        assert norm.item() == pytest.approx(4 * bank.storage[1].norm().item(), rel=1e-5)


def test_a_layer_without_a_gradient_counts_as_zero() -> None:
    bank = filled_bank()
    packed = PackedAdamW(bank)
    give_gradients(bank, 0)
    bank.parameters()[1].grad = None
    packed.gather()
    assert not packed.gradients[:, 24:44].any() and packed.gradients[:, :24].all()
    packed.step({1: 0.0})
    packed.gather()
    assert not packed.gradients.any()


def test_a_step_uses_the_gradients_that_workers_have_summed() -> None:
    summed, whole = filled_bank(), filled_bank()
    first, second = PackedAdamW(summed), PackedAdamW(whole)
    give_gradients(summed, 0)
    give_gradients(whole, 0)
    for parameter in whole.parameters():
        assert parameter.grad is not None
        parameter.grad *= 2
    first.gather()
    first.gradients += first.gradients.clone()  # what an all-reduce over two equal workers does
    norms = [packed.step({1: 1e-2, 3: 1e-2}) for packed in (first, second)]
    assert torch.equal(*norms) and torch.equal(summed.storage, whole.storage)


@pytest.mark.parametrize("neighbour", ["lives", "diverges", "is absent"])
def test_a_slot_does_not_feel_its_neighbour_by_a_bit(neighbour: str) -> None:
    """Each case against the same, fixed course of slots 1 and 3 alone."""
    courses = []
    for beside in ("is absent", neighbour):
        bank = filled_bank()
        packed = PackedAdamW(bank)
        for slot in (1, 2, 3):
            packed.configure(slot, settings_of(slot))
        norms = []
        for step in range(3):
            give_gradients(bank, step)
            if beside == "diverges" and step:
                for parameter in bank.parameters():
                    assert parameter.grad is not None
                    parameter.grad[2] = float("nan")
            rates = {1: 1e-2, 3: 1e-3} if beside == "is absent" else {1: 1e-2, 2: 1e-2, 3: 1e-3}
            norms.append(packed.step(rates)[[0, -1]])
        assert bank.storage[2].isfinite().all() == (beside != "diverges")
        courses.append((bank.storage[[1, 3]], torch.stack(norms), packed.state_of(3, RANK).variance))
    for alone, beside_another in zip(*courses, strict=True):
        assert torch.equal(alone, beside_another)


def test_a_slot_that_diverged_can_be_used_again() -> None:
    bank = filled_bank()
    packed = PackedAdamW(bank)
    packed.configure(2, HyperParameters())
    give_gradients(bank, 0, size=float("nan"))
    assert packed.step({2: 1e-2}).isnan().all()
    bank.initialise(2, rank=RANK, seed=1)
    packed.configure(2, HyperParameters())
    give_gradients(bank, 1)
    assert packed.step({2: 1e-2}).isfinite().all() and bank.storage[2].isfinite().all()


def test_configuring_a_slot_again_forgets_its_moments() -> None:
    first, second = filled_bank(), filled_bank()
    fresh, used = PackedAdamW(first), PackedAdamW(second)
    used.configure(1, HyperParameters(learning_rate=1.0))
    kept = used.state_of(1, RANK)
    give_gradients(second, 1)
    used.step({1: 1.0})
    used.restore(1, RANK, kept)
    for optimiser, bank in ((fresh, first), (used, second)):
        optimiser.configure(1, HyperParameters())
        give_gradients(bank, 2)
        optimiser.step({1: 1e-2})
    assert torch.equal(fresh.state_of(1, RANK).weights, used.state_of(1, RANK).weights)


def test_state_moves_to_another_slot_of_a_wider_bank() -> None:
    narrow, wide = filled_bank(), filled_bank(slots=5, rank=6)
    narrow.load(1, adapter := of_rank_two(narrow))
    wide.load(5, adapter)
    first, second = PackedAdamW(narrow), PackedAdamW(wide)
    first.configure(1, settings_of(1))
    second.configure(5, settings_of(1))

    def advance(seed: int, *moved: tuple[AdapterBank, PackedAdamW, int]) -> None:
        numbers = torch.randn(int(narrow.used(2).sum()), generator=torch.Generator().manual_seed(seed))
        for bank, packed, slot in moved:
            packed.gather()
            packed.gradients[slot, bank.used(2)] = numbers
            packed.step({slot: 1e-2})

    advance(0, (narrow, first, 1))
    state = first.state_of(1, 2)
    assert len(state.weights) == 2 * (6 + 5 + 3 + 7) and state.updates == 1
    second.restore(5, 2, state)
    advance(1, (narrow, first, 1), (wide, second, 5))
    torch.testing.assert_close(
        second.state_of(5, 2).weights, first.state_of(1, 2).weights, rtol=1e-6, atol=1e-7
    )
    with pytest.raises(ValueError, match="rank 3 here needs"):
        second.restore(5, 3, state)


def of_rank_two(bank: AdapterBank) -> Adapter:
    """An adapter of rank 2, for a bank of more."""
    bank.initialise(1, rank=2)
    return bank.export(1)


def test_adapters_in_half_precision_are_not_trained() -> None:
    with pytest.raises(ValueError, match="trained in float32, not torch"):
        PackedAdamW(filled_bank(dtype=torch.bfloat16))


class HostReads(TorchDispatchMode):
    """Counts the operations inside the ``with`` for which a host waits for its device."""

    count = 0

    def __torch_dispatch__(
        self, function: Any, _types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.count += function.name().startswith(
            ("aten::_local_scalar_dense", "aten::nonzero", "aten::index")
        )
        return function(*args, **(kwargs or {}))


def test_a_step_reads_nothing_back_from_the_device() -> None:
    bank = filled_bank()
    packed = PackedAdamW(bank)
    give_gradients(bank, 0)
    with HostReads() as reads:  # type: ignore[no-untyped-call]
        packed.configure(1, settings_of(1))
        for _ in range(2):  # the first makes the optimiser's state
            norms = packed.step({1: 1e-3, 3: 1e-3})
        assert reads.count == 0
        assert norms.isfinite().tolist() == [True, True] and norms[[0, 1]].shape == (2,)
        assert reads.count > 0  # what it counts if there is something


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_step_does_not_wait_for_a_gpu() -> None:
    bank = filled_bank(device="cuda")
    packed = PackedAdamW(bank)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(2):
            for parameter in bank.parameters():
                parameter.grad = torch.ones_like(parameter)
            packed.configure(1, settings_of(1))
            packed.step({1: 1e-3, 3: 1e-3})
    finally:
        torch.cuda.set_sync_debug_mode("default")
