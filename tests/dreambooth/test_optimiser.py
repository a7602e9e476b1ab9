"""The packed optimiser against torch.optim.AdamW and clip_grad_norm_, one slot at a time."""

import pytest
import torch
from torch import nn

from corrector.dreambooth.optimiser import PackedAdamW
from corrector.prompts import HyperParameters

SHAPES = ((4, 6), (5, 4), (4, 3), (7, 4))  # A, B, A, B of rank 4
SLOTS = 3


def stacked(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(SLOTS + 1, *shape, generator=generator)) for shape in SHAPES]


def give_gradients(parameters: list[nn.Parameter], seed: int, size: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
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
    parameters = stacked()
    packed = PackedAdamW(parameters)
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
        give_gradients(parameters, step, size=0.02 * step)  # below the limits at first, above them later
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


def test_slots_that_are_not_named_stay_bit_equal() -> None:
    parameters = stacked()
    packed = PackedAdamW(parameters)
    for slot in (1, 2, 3):
        packed.configure(slot, settings_of(slot))
    give_gradients(parameters, 0)
    packed.step({1: 0.1, 2: 0.1, 3: 0.1})
    before = packed.state_of(2, 4)
    for seed in range(3):
        give_gradients(parameters, seed)
        packed.step({1: 0.1, 3: 0.1})
    after = packed.state_of(2, 4)
    assert torch.equal(before.weights, after.weights) and torch.equal(before.variance, after.variance)
    assert before.updates == after.updates == 1 and packed.state_of(3, 4).updates == 4


def test_gradients_of_a_backward_reach_the_buffer() -> None:
    parameters = stacked()
    packed = PackedAdamW(parameters)
    packed.configure(1, HyperParameters(max_grad_norm=1e6))
    for _ in range(2):
        for _ in range(2):  # two backward passes add up
            sum((parameter[1:2] ** 2).sum() for parameter in parameters).backward()  # type: ignore[union-attr]
        flat = torch.cat([parameter[1].detach().flatten() for parameter in parameters])
        (norm,) = packed.step({1: 0.0})
        assert norm.item() == pytest.approx(4 * flat.norm().item(), rel=1e-5)


def test_a_slot_without_finite_gradients_ruins_only_itself() -> None:
    parameters = stacked()
    packed = PackedAdamW(parameters)
    for slot in (1, 2):
        packed.configure(slot, HyperParameters())
    give_gradients(parameters, 0)
    assert parameters[1].grad is not None
    parameters[1].grad[2, 0, 0] = float("nan")
    norms = packed.step({1: 1e-2, 2: 1e-2})
    assert norms.isfinite().tolist() == [True, False]
    assert all(parameter[1].isfinite().all() for parameter in parameters)


def test_configuring_a_slot_again_forgets_its_moments() -> None:
    fresh, used = PackedAdamW(first := stacked()), PackedAdamW(second := stacked())
    used.configure(1, HyperParameters(learning_rate=1.0))
    kept = used.state_of(1, 4)
    give_gradients(second, 1)
    used.step({1: 1.0})
    used.restore(1, 4, kept)
    for optimiser, parameters in ((fresh, first), (used, second)):
        optimiser.configure(1, HyperParameters())
        give_gradients(parameters, 2)
        optimiser.step({1: 1e-2})
    assert torch.equal(fresh.state_of(1, 4).weights, used.state_of(1, 4).weights)


def test_state_moves_to_another_slot_of_a_wider_bank() -> None:
    source = stacked()
    for position, parameter in enumerate(source):  # an adapter of rank 2, padded to 4
        (parameter.data[1, 2:] if position % 2 == 0 else parameter.data[1, :, 2:]).zero_()
    first = PackedAdamW(source)
    wide = [
        nn.Parameter(
            torch.zeros(
                6, *(6 if size == 4 and axis == position % 2 else size for axis, size in enumerate(shape))
            )
        )
        for position, shape in enumerate(SHAPES)
    ]
    second = PackedAdamW(wide)
    first.configure(1, settings_of(1))
    second.configure(5, settings_of(1))

    def advance(seed: int) -> None:
        give_gradients(source, seed)
        for position, (parameter, other) in enumerate(zip(source, wide, strict=True)):
            assert parameter.grad is not None
            other.grad = torch.zeros_like(other)
            used = (slice(0, 2), slice(None)) if position % 2 == 0 else (slice(None), slice(0, 2))
            gradient = parameter.grad[1][used].clone()
            parameter.grad[1] = 0
            parameter.grad[1][used] = gradient
            other.grad[5][used] = gradient

    advance(0)
    first.step({1: 1e-2})
    state = first.state_of(1, 2)
    assert len(state.weights) == 2 * (6 + 5 + 3 + 7) and state.updates == 1
    second.restore(5, 2, state)
    advance(1)
    first.step({1: 1e-2})
    second.step({5: 1e-2})
    torch.testing.assert_close(
        second.state_of(5, 2).weights, first.state_of(1, 2).weights, rtol=1e-6, atol=1e-7
    )
    with pytest.raises(ValueError, match="rank 3 here needs"):
        second.restore(5, 3, state)
