"""The planner's arithmetic against real transformers, and its choices."""

from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from corrector.adapters import AdapterBank
from corrector.dreambooth.blocks import recompute_blocks
from corrector.dreambooth.pack_plan import PackPlan, measure_rate, plan_packs
from corrector.dreambooth.transformer_cost import TransformerCost
from corrector.errors import UserError
from corrector.prompts import HyperParameters
from tests.benchmarks.activations import Case, track
from tests.support.sd3_family import MODELS, Model, configuration
from tests.support.small_sd3 import Variant, small_transformer, transformer_inputs

VARIANTS: tuple[Variant, ...] = ("sd3", "sd35")
PATCHES, TOKENS = 16, 28


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_counted_exactly(variant: Variant) -> None:
    transformer = small_transformer(variant)
    cost = TransformerCost.of(transformer.config)
    assert cost.parameters == sum(parameter.numel() for parameter in transformer.parameters())
    bank = AdapterBank(transformer, slots=1, rank=4)
    assert 2 * cost.adapter_parameters(4) == sum(parameter.numel() for parameter in bank.parameters())


@pytest.mark.parametrize("model", MODELS)
def test_parameters_of_the_family_are_counted_exactly(model: Model) -> None:
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(**configuration(model))
    cost = TransformerCost.of(transformer.config)
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
def test_operations_that_checkpointing_adds_are_what_pytorch_counts(variant: Variant) -> None:
    def operations(checkpointing: bool) -> int:
        transformer = small_transformer(variant)
        recompute_blocks(transformer, checkpointing)
        bank = AdapterBank(transformer, slots=1, rank=4, trainable=True)
        bank.initialise(1, rank=4)
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, bank.rows([1, 1, 1]):
            transformer(**transformer_inputs(3)).sample.square().mean().backward()
        return counter.get_total_flops()

    cost = TransformerCost.of(small_transformer(variant).config)
    assert 3 * cost.recompute_flops(PATCHES, TOKENS, rank=4) == operations(True) - operations(False)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("model", "resolution", "rank", "layers"),
    [("sd3-medium", 512, 128, 4), ("sd3.5-medium", 1024, 16, 6), ("sd3.5-large", 512, 4, 4)],
)
def test_activations_are_predicted_within_a_tenth(
    model: Model, resolution: int, rank: int, layers: int, checkpointing: bool
) -> None:
    case = Case(model, resolution, rank, rows=2, checkpointing=checkpointing, layers=layers)
    assert case.predicted == pytest.approx(track(case).peak, rel=0.1)


@pytest.mark.parametrize(
    ("model", "resolution"), [*((model, 512) for model in MODELS), ("sd3.5-medium", 1024)]
)
def test_memory_of_a_forward_without_gradients_is_predicted(model: Model, resolution: int) -> None:
    case = Case(model, resolution, 16, rows=2, checkpointing=False, layers=2, sampling=True)
    # The prediction is the family's worst case.
    assert 0.98 < case.predicted / track(case).peak < 1.25


def test_as_many_images_are_sampled_at_once_as_fit() -> None:
    settings = [HyperParameters(rank=4, batch_size=1, preservation="none")]
    roomy, tight = plan(settings), plan(settings, memory_bytes=2**21)
    cost = TransformerCost.of(small_transformer().config)
    image = 2 * cost.sampling_bytes(PATCHES, TOKENS, 4)
    for each, memory in ((roomy, 2**33), (tight, 2**21)):
        free = memory - each.weights_bytes - each.adapters_bytes
        assert each.images_at_once * image <= free < (each.images_at_once + 1) * image


def test_the_largest_block_is_counted_exactly() -> None:
    for model in MODELS:
        config = configuration(model, layers=2)
        with torch.device("meta"):
            block = SD3Transformer2DModel(**config).transformer_blocks[0]
        assert TransformerCost.of(config).block_parameters == sum(each.numel() for each in block.parameters())


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


def medium(count: int, memory: int, *, weights_bytes: int | None = None, **settings: Any) -> PackPlan:
    """A plan for SD3-medium in bfloat16 on a device with ``memory`` GiB."""
    return plan_packs(
        configuration("sd3-medium"), [HyperParameters(**{"preservation": "none", **settings})] * count, resolution=512,
        vae_scale_factor=8, tokens=77 + 256, memory_bytes=memory * 2**30, lanes=1, dtype=torch.bfloat16, rate=2e14,
        weights_bytes=weights_bytes,
    )  # fmt: skip


def test_a_batch_is_spread_over_the_lanes() -> None:
    settings = [HyperParameters(rank=rank, steps=10, batch_size=2) for rank in (4, 16, 8, 4, 4)]
    spread = plan(settings, lanes=2, rate=1e9)
    assert (spread.prompts, spread.lanes, spread.slots, spread.rank) == (5, 2, 3, 16)
    assert spread.rows == 3 * (2 + 1) and spread.tokens_per_forward is None
    assert spread.seconds == pytest.approx(spread.total_flops * 0.6 / 1e9, rel=0.05)
    assert plan(settings[:1], lanes=4).lanes == 1
    assert plan(settings * 10, max_slots=7).slots == 7
    assert plan(settings).seconds is None


def test_operations_follow_the_hyper_parameters() -> None:
    def total(**settings: Any) -> int:
        return plan([HyperParameters(**{"steps": 10, "batch_size": 2, **settings})]).total_flops

    assert total(steps=20) == 2 * total()
    prior, guard = (total(preservation=kind, preservation_batch_size=2) for kind in ("prior", "guard"))
    assert total(preservation="none") < prior < guard
    assert total(preservation="none") < total() < total(preservation_batch_size=1) < guard
    assert prior == total(preservation="prior")
    assert total(batch_size=4) == 2 * total()
    assert total() < total(resolution=32)


def test_memory_decides_slots_then_turns_then_checkpointing_then_offloading() -> None:
    settings = [HyperParameters(rank=4, batch_size=4)] * 8
    roomy = plan(settings)
    assert (roomy.slots, roomy.checkpointing, roomy.offload, roomy.recompute_flops) == (8, False, False, 0)
    tight = plan(settings, memory_bytes=roomy.memory_bytes - 1)
    assert tight.slots == 7 and tight.tokens_per_forward is None and tight.memory_bytes < roomy.memory_bytes
    single = plan(settings[:1])
    row = single.activations_bytes // single.rows
    least = single.memory_bytes - single.activations_bytes
    turns = plan(settings, memory_bytes=single.memory_bytes - 3 * row)
    assert (turns.slots, turns.checkpointing) == (1, False)
    assert turns.tokens_per_forward == pytest.approx((single.rows - 3) * (PATCHES + TOKENS), abs=1)
    again = plan(settings, memory_bytes=least + row - 100)
    assert again.checkpointing and not again.offload
    assert again.total_flops > turns.total_flops and again.step_flops == turns.step_flops * again.slots
    assert "blocks recomputed" in str(again) and "turns of" in str(turns)
    short = least - single.weights_bytes // 3
    with pytest.raises(
        UserError, match=r"one training row needs .* MiB even .*; allow the base to be offloaded"
    ):
        plan(settings, memory_bytes=short)
    offloaded = plan(settings, memory_bytes=short, allow_offload=True)
    assert offloaded.offload and offloaded.checkpointing and offloaded.memory_bytes <= short
    assert offloaded.weights_bytes < single.weights_bytes
    with pytest.raises(UserError, match=r"give the host .* MiB a worker"):
        plan(settings, memory_bytes=short, allow_offload=True, host_memory_bytes=single.weights_bytes - 1)
    with pytest.raises(ValueError, match="nothing to plan"):
        plan([])


def test_a_quantised_base_leaves_more_room_and_is_proposed_where_it_would_help() -> None:
    whole, quantised = medium(8, 6, batch_size=1), medium(8, 6, batch_size=1, weights_bytes=1_200_000_000)
    assert quantised.weights_bytes == 1_200_000_000 and quantised.slots > whole.slots
    with pytest.raises(UserError, match="load the base with precision nf4, lower resolution or rank, or use"):
        plan([HyperParameters(rank=4)], memory_bytes=700_000)


def test_workers_share_the_rows_but_not_the_weights() -> None:
    settings = [HyperParameters(rank=4, batch_size=4, preservation="none")] * 4
    one, two = plan(settings, rate=1e9), plan(settings, rate=1e9, workers=2)
    assert (two.workers, two.rows) == (2, one.rows)
    assert two.activations_bytes * 2 == one.activations_bytes and two.adapters_bytes == one.adapters_bytes
    assert one.seconds is not None and two.seconds == pytest.approx(one.seconds / 2)
    assert "16 rows a step shared by 2 workers" in str(two) and "memory a worker: " in str(two)


def test_resolutions_meet_in_a_pack_but_not_in_a_forward() -> None:
    small = [HyperParameters(rank=4, batch_size=1, preservation="none")] * 4
    large = [HyperParameters(rank=4, batch_size=1, preservation="none", resolution=32)]
    alone, mixed = plan(large), plan(small + large)
    assert mixed.slots == 5
    assert mixed.activations_bytes < alone.activations_bytes + 4 * plan(small[:1]).activations_bytes


def test_a_resolution_that_does_not_fit_the_patches_is_refused() -> None:
    with pytest.raises(UserError, match=r"resolution 520 is not a multiple of 16, .*; use 512"):
        plan_packs(
            configuration("sd3-medium"), [HyperParameters()], resolution=520, vae_scale_factor=8, tokens=TOKENS,
            memory_bytes=2**40, lanes=1,
        )  # fmt: skip


def test_a_real_base_gives_believable_figures() -> None:
    four = medium(4, 80, rank=16, batch_size=1)
    assert four.slots == 4
    assert 3.5 * 2**30 < four.weights_bytes < 4.5 * 2**30
    assert 1e12 < four.step_flops / 4 < 2e13
    assert "4 fine-tunes in 1 lane of 4 slots at rank 16; 4 rows a step" in str(four)
    assert "memory a lane: " in str(four) and "about " in str(four)


def test_sixteen_slots_of_sd3_medium_fit_sixty_gigabytes_without_checkpointing() -> None:
    pack = medium(16, 80, rank=16, batch_size=1)
    assert (pack.slots, pack.tokens_per_forward, pack.checkpointing) == (16, None, False)
    assert pack.memory_bytes < 60e9


def test_a_small_device_trains_sd3_medium_at_1024_with_its_blocks_recomputed() -> None:
    pack = medium(4, 6, rank=16, batch_size=1, resolution=1024)
    assert (pack.checkpointing, pack.offload) == (True, False)


def test_the_rate_is_measured_within_its_time() -> None:
    rate = measure_rate(dict(small_transformer().config), rows=2, seconds=0.05)
    assert 1e6 < rate < 1e14
