"""What serving asks of the sampler: few shapes, rows equal to the bit whatever else is under way, leaving early, previews."""

import random
from collections.abc import Sequence

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from corrector.adapters import AdapterBank
from corrector.base import (
    TextEmbeddings,
    encode_prompts,
    load_scheduler,
    load_transformer,
    resolve_base,
)
from corrector.sampling import Sampler, SampleRow
from tests.support.small_banks import random_adapter

PROMPTS = ["a person lying on the grass", "a dog sitting on the beach", "a robot jumping on the street"]
RANKS = (4, 8, 2, 8)


class Base:
    """The embedded base with four adapters of different ranks."""

    def __init__(self, *, static: bool) -> None:
        spec = resolve_base("embedded")
        self.transformer: SD3Transformer2DModel = load_transformer(spec)
        self.bank = AdapterBank(
            self.transformer, slots=len(RANKS), rank=8, static=static, row_wise=not static
        )
        for slot, rank in enumerate(RANKS, start=1):
            adapter = random_adapter(self.bank, self.transformer, rank=rank, alpha=rank / slot, seed=slot)
            self.bank.load(slot, adapter)
        self.scheduler = load_scheduler(spec)
        self.embeddings: dict[str, TextEmbeddings] = encode_prompts(spec, [*PROMPTS, ""], cache=None)

    def sampler(self, buckets: Sequence[int] = ()) -> Sampler:
        return Sampler(
            self.transformer,
            self.bank,
            self.scheduler,
            height=64,
            width=64,
            vae_scale_factor=4,
            row_buckets=buckets,
        )

    def row(self, number: int) -> SampleRow:
        """One of a fixed series of requests."""
        return SampleRow(
            prompt=self.embeddings[PROMPTS[number % 3]],
            negative=self.embeddings[""],
            num_inference_steps=2 + number % 3,
            guidance_scale=(1.0, 4.0)[number % 2],
            slot=number % (len(RANKS) + 1),
            seed=number,
        )


@pytest.fixture(scope="module", params=[False, True], ids=["row-wise", "static"])
def base(request: pytest.FixtureRequest) -> Base:
    return Base(static=request.param)


def drawn(base: Base, numbers: Sequence[int], buckets: Sequence[int], *, seed: int) -> dict[int, Tensor]:
    """Latents by number of request; requests join at random moments."""
    sampler, chance = base.sampler(buckets), random.Random(seed)
    waiting = list(numbers)
    chance.shuffle(waiting)
    tickets: dict[int, int] = {}
    found: dict[int, Tensor] = {}
    while waiting or len(sampler):
        while waiting and sampler.forward_rows + base.row(waiting[-1]).forward_rows <= buckets[-1]:
            number = waiting.pop()
            tickets[sampler.admit([base.row(number)])[0]] = number
            if chance.random() < 0.5:
                break
        found |= {tickets[ticket]: latents for ticket, latents in sampler.step().items()}
    return found


def test_in_one_bucket_a_row_is_the_same_to_the_bit_in_any_company(base: Base) -> None:
    alone = {number: drawn(base, [number], (4,), seed=0)[number] for number in range(10)}
    for seed in range(2):
        mixed = drawn(base, range(10), (4,), seed=seed)
        assert [number for number in alone if not torch.equal(alone[number], mixed[number])] == []


def test_across_buckets_a_row_differs_by_rounding(base: Base) -> None:
    buckets = (2, 4, 6, 8)
    one, other = drawn(base, range(10), buckets, seed=1), drawn(base, range(10), (8,), seed=2)
    for number, latents in one.items():
        torch.testing.assert_close(latents, other[number], rtol=0, atol=2e-4)


def test_the_transformer_sees_whole_buckets_only(base: Base) -> None:
    seen: set[int] = set()
    handle = base.transformer.register_forward_pre_hook(
        lambda _module, _args, inputs: seen.add(len(inputs["hidden_states"])), with_kwargs=True
    )
    try:
        drawn(base, range(6), (3, 6), seed=0)
        sampler = base.sampler((3,))
        sampler.admit([base.row(number) for number in range(4)])
        assert sampler.forward_rows == 6
        sampler.step()
    finally:
        handle.remove()
    assert seen == {3, 6}  # what no bucket has room for is not padded


def test_a_row_that_is_cancelled_leaves_the_others_as_they_were(base: Base) -> None:
    sampler = base.sampler((8,))
    kept, gone = sampler.admit([base.row(4), base.row(2)])
    sampler.step()
    sampler.cancel([gone, 99])
    assert len(sampler) == 1
    sampler.cancel([gone])
    found: dict[int, Tensor] = {}
    while len(sampler):
        found |= sampler.step()
    assert list(found) == [kept]
    assert torch.equal(found[kept], drawn(base, [4], (8,), seed=0)[4])


def test_a_preview_heads_for_the_image(base: Base) -> None:
    """After every step the estimate is nearer."""
    sampler = base.sampler()
    row = base.row(5)  # four steps, guided
    (ticket,) = sampler.admit([row])
    assert sampler.denoised([ticket]) == {}
    estimates = []
    while not (done := sampler.step()):
        estimates.append(sampler.denoised([ticket, 99])[ticket])
    distances = [float((estimate - done[ticket]).norm()) for estimate in estimates]
    assert distances == sorted(distances, reverse=True) and len(distances) == 3
    noise = torch.randn((1, *done[ticket].shape), generator=torch.Generator().manual_seed(row.seed))[0]
    assert distances[-1] < 0.5 * float((noise - done[ticket]).norm())
