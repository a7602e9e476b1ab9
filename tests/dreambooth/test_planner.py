"""The planner's arithmetic against real transformers, and its choices."""

from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from corrector.adapters import AdapterBank
from corrector.dreambooth.cost import TransformerCost
from corrector.dreambooth.planner import PackPlan, measure_rate, plan_packs
from corrector.errors import UserError
from corrector.prompts import HyperParameters
from tests.small_sd3 import Variant, small_transformer, transformer_inputs

VARIANTS: tuple[Variant, ...] = ("sd3", "sd35")
PATCHES, TOKENS = 16, 28
MEDIUM = {
    "sample_size": 128, "patch_size": 2, "in_channels": 16, "num_layers": 24, "attention_head_dim": 64,
    "num_attention_heads": 24, "joint_attention_dim": 4096, "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048, "out_channels": 16, "pos_embed_max_size": 192,
}  # fmt: skip
"""Stable Diffusion 3 medium's."""


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_counted_exactly(variant: Variant) -> None:
    transformer = small_transformer(variant)
    cost = TransformerCost.of(transformer.config)
    assert cost.parameters == sum(parameter.numel() for parameter in transformer.parameters())
    bank = AdapterBank(transformer, slots=1, rank=4)
    assert 2 * cost.adapter_parameters(4) == sum(parameter.numel() for parameter in bank.parameters())


def test_parameters_of_sd3_medium_are_counted_exactly() -> None:
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(**MEDIUM)
    cost = TransformerCost.of(MEDIUM)
    assert cost.parameters == sum(parameter.numel() for parameter in transformer.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_operations_of_a_forward_are_what_pytorch_counts(variant: Variant) -> None:
    transformer = small_transformer(variant)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        transformer(**transformer_inputs(3))
    assert (
        3 * TransformerCost.of(transformer.config).forward_flops(PATCHES, TOKENS) == counter.get_total_flops()
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_operations_of_training_are_nearly_what_pytorch_counts(variant: Variant) -> None:
    transformer = small_transformer(variant)
    bank = AdapterBank(transformer, slots=1, rank=4, trainable=True)
    bank.initialise(1, rank=4)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, bank.rows([1, 1, 1]):
        transformer(**transformer_inputs(3)).sample.square().mean().backward()
    estimate = 3 * TransformerCost.of(transformer.config).training_flops(PATCHES, TOKENS, rank=4)
    assert estimate == pytest.approx(counter.get_total_flops(), rel=0.15)


@pytest.mark.parametrize("variant", VARIANTS)
def test_activations_are_nearly_what_autograd_keeps(variant: Variant) -> None:
    transformer = small_transformer(variant)
    bank = AdapterBank(transformer, slots=1, rank=4, trainable=True)
    bank.initialise(1, rank=4)
    constant = {
        tensor.untyped_storage().data_ptr()
        for tensor in (*transformer.parameters(), *transformer.buffers(), *bank.parameters())
    }
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), bank.rows([1] * 4):
        prediction = transformer(**transformer_inputs(4)).sample
    assert prediction.requires_grad
    measured = sum(tensor.untyped_storage().nbytes() for at, tensor in kept.items() if at not in constant) / 4
    estimate = TransformerCost.of(transformer.config).activation_bytes(PATCHES, TOKENS, itemsize=4)
    assert estimate == pytest.approx(measured, rel=0.15)


def plan(
    settings: list[HyperParameters], memory_bytes: int = 2**33, lanes: int = 1, **options: Any
) -> PackPlan:
    config = dict(small_transformer().config)
    return plan_packs(
        config,
        settings,
        resolution=16,
        vae_scale_factor=2,
        tokens=TOKENS,
        memory_bytes=memory_bytes,
        lanes=lanes,
        **options,
    )


def test_a_batch_is_spread_over_the_lanes() -> None:
    settings = [HyperParameters(rank=rank, steps=10, batch_size=2) for rank in (4, 16, 8, 4, 4)]
    spread = plan(settings, lanes=2, rate=1e9)
    assert (spread.prompts, spread.lanes, spread.slots, spread.rank) == (5, 2, 3, 16)
    assert spread.rows == 3 * (2 + 2) and spread.rows_per_forward is None
    assert spread.seconds == pytest.approx(spread.total_flops * 0.6 / 1e9, rel=0.05)
    assert plan(settings[:1], lanes=4).lanes == 1
    assert plan(settings * 10, max_slots=7).slots == 7
    assert plan(settings).seconds is None


def test_operations_follow_the_hyper_parameters() -> None:
    def total(**settings: Any) -> int:
        return plan([HyperParameters(**{"steps": 10, "batch_size": 2, **settings})]).total_flops

    assert total(steps=20) == 2 * total()
    assert total(preservation="none") < total(preservation="prior") < total(preservation="guard")
    assert total(batch_size=4) == 2 * total()
    assert total(preservation_batch_size=1) < total() < total(resolution=32)


def test_memory_decides_slots_then_rows_in_turns() -> None:
    settings = [HyperParameters(rank=4, batch_size=4)] * 8
    roomy = plan(settings)
    assert roomy.slots == 8
    tight = plan(settings, memory_bytes=roomy.memory_bytes - 1)
    assert tight.slots == 7 and tight.rows_per_forward is None and tight.memory_bytes < roomy.memory_bytes
    single = plan(settings[:1])
    row = single.activations_bytes // single.rows
    turns = plan(settings, memory_bytes=single.memory_bytes - 3 * row)
    assert (turns.slots, turns.rows_per_forward) == (1, single.rows - 3)
    with pytest.raises(UserError, match=r"one training row needs .* MiB; lower resolution"):
        plan(settings, memory_bytes=single.memory_bytes - single.rows * row)
    with pytest.raises(ValueError, match="nothing to plan"):
        plan([])


def test_a_real_base_gives_believable_figures() -> None:
    medium = plan_packs(
        MEDIUM, [HyperParameters(rank=16, batch_size=1, preservation="none")] * 4, resolution=512, vae_scale_factor=8,
        tokens=77 + 256, memory_bytes=80 * 2**30, lanes=1, dtype=torch.bfloat16, rate=2e14,
    )  # fmt: skip
    assert medium.slots == 4
    assert 3.5 * 2**30 < medium.weights_bytes < 4.5 * 2**30
    assert 1e12 < medium.step_flops / 4 < 2e13
    assert "4 fine-tunes in 1 lane of 4 slots at rank 16; 4 rows a step" in str(medium)
    assert "memory a lane: " in str(medium) and "about " in str(medium)


def test_the_rate_is_measured_within_its_time() -> None:
    rate = measure_rate(dict(small_transformer().config), rows=2, seconds=0.05)
    assert 1e6 < rate < 1e14
