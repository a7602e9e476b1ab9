"""Sampling equals StableDiffusion3Pipeline, and a row's image does not depend on what shares its batch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from corrector.adapters import Adapter, AdapterBank, load_adapter, save_adapter
from corrector.base import BaseSpec, TextEmbeddings, encode_prompts, resolve_base
from corrector.errors import UserError
from corrector.sampling import Sampler, SampleRow, flow_schedule, sample_images, sample_latents

PROMPTS = ["a person lying on the grass", "a dog on the road", "the red house", ""]


@dataclass
class Bench:
    """A small pipeline and its parts, with a bank of two adapters around its transformer."""

    spec: BaseSpec
    pipeline: StableDiffusion3Pipeline
    bank: AdapterBank
    embeddings: dict[str, TextEmbeddings]

    def row(
        self, prompt: str, *, steps: int = 3, guidance: float = 4.0, slot: int = 0, seed: int = 0
    ) -> SampleRow:
        return SampleRow(
            prompt=self.embeddings[prompt],
            negative=self.embeddings[""],
            slot=slot,
            seed=seed,
            num_inference_steps=steps,
            guidance_scale=guidance,
        )

    def draw(
        self, rows: Sequence[SampleRow], *, batch_rows: int = 16, height: int = 16, width: int = 16
    ) -> Tensor:
        pipe = self.pipeline
        return sample_images(
            pipe.transformer,
            pipe.vae,
            self.bank,
            pipe.scheduler,
            rows,
            height=height,
            width=width,
            batch_rows=batch_rows,
        )

    def reference(
        self,
        prompt: str,
        *,
        steps: int = 3,
        guidance: float = 4.0,
        seed: int = 0,
        height: int = 16,
        width: int = 16,
    ) -> Tensor:
        images: Tensor = self.pipeline(
            prompt,
            height=height,
            width=width,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator("cpu").manual_seed(seed),
            max_sequence_length=self.spec.max_sequence_length,
            output_type="pt",
        ).images
        return images


def random_adapter(bank: AdapterBank, *, rank: int, alpha: float, seed: int) -> Adapter:
    bank.initialise(1, rank=rank, alpha=alpha, seed=seed)
    adapter = bank.export(1)
    bank.unload(1)
    generator = torch.Generator().manual_seed(seed)
    weights = {
        path: (down, torch.randn(up.shape, generator=generator) * 0.3)
        for path, (down, up) in adapter.weights.items()
    }
    return replace(adapter, weights=weights)


def make_bench(folder: Path) -> Bench:
    spec = resolve_base(str(folder))
    pipeline = StableDiffusion3Pipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    bank = AdapterBank(pipeline.transformer, slots=2, rank=4)
    adapters = [random_adapter(bank, rank=4, alpha=6, seed=1), random_adapter(bank, rank=2, alpha=2, seed=2)]
    for slot, adapter in enumerate(adapters, start=1):
        bank.load(slot, adapter)
    return Bench(spec, pipeline, bank, encode_prompts(spec, PROMPTS, cache=None))


@pytest.fixture(scope="module")
def bench(small_sd3: Path) -> Bench:
    return make_bench(small_sd3)


def mixed_rows(bench: Bench) -> list[SampleRow]:
    """Rows of three slots that differ in everything and finish at different times."""
    return [
        bench.row(PROMPTS[0], steps=5, guidance=4.0, slot=1, seed=1),
        bench.row(PROMPTS[1], steps=2, guidance=1.0, slot=0, seed=2),
        bench.row(PROMPTS[2], steps=3, guidance=7.5, slot=2, seed=3),
        bench.row(PROMPTS[0], steps=1, guidance=0.0, slot=1, seed=4),
        bench.row(PROMPTS[1], steps=4, guidance=2.0, slot=0, seed=5),
        bench.row(PROMPTS[2], steps=3, guidance=1.0, slot=2, seed=6),
        bench.row(PROMPTS[3], steps=2, guidance=3.0, slot=1, seed=7),
    ]


@pytest.mark.parametrize("guidance", [4.0, 1.0])
def test_images_are_those_of_the_pipeline(bench: Bench, guidance: float) -> None:
    rows = [bench.row(prompt, guidance=guidance, seed=seed) for seed, prompt in enumerate(PROMPTS)]
    images = bench.draw(rows)
    for image, (seed, prompt) in zip(images, enumerate(PROMPTS), strict=True):
        expected = bench.reference(prompt, guidance=guidance, seed=seed)[0]
        torch.testing.assert_close(image, expected, rtol=0, atol=1e-4)
    assert (images[0] - images[1]).abs().max() > 0.1


def test_rows_in_one_batch_each_equal_the_pipeline_with_their_own_settings(bench: Bench) -> None:
    images = bench.draw(mixed_rows(bench), batch_rows=4)
    for number in (1, 4):  # the rows of the base
        row = mixed_rows(bench)[number]
        expected = bench.reference(
            PROMPTS[1], steps=row.num_inference_steps, guidance=row.guidance_scale, seed=row.seed
        )
        torch.testing.assert_close(images[number], expected[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("batch_rows", [1, 3, 16])
def test_a_row_s_image_does_not_depend_on_the_others(bench: Bench, batch_rows: int) -> None:
    rows = mixed_rows(bench)
    together = bench.draw(rows, batch_rows=batch_rows)
    for number, row in enumerate(rows):
        torch.testing.assert_close(together[number : number + 1], bench.draw([row]), rtol=1e-5, atol=1e-5)
    backwards = bench.draw(rows[::-1], batch_rows=batch_rows)
    torch.testing.assert_close(backwards.flip(0), together, rtol=1e-5, atol=1e-5)


def test_images_that_are_not_square(bench: Bench) -> None:
    image = bench.draw([bench.row(PROMPTS[1], seed=3)], height=8, width=12)
    torch.testing.assert_close(
        image, bench.reference(PROMPTS[1], seed=3, height=8, width=12), rtol=0, atol=1e-4
    )


def test_sd35_with_dynamic_shifting_equals_the_pipeline(small_sd35: Path) -> None:
    bench = make_bench(small_sd35)
    bench.pipeline.scheduler = FlowMatchEulerDiscreteScheduler.from_config(
        bench.pipeline.scheduler.config, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.16
    )
    fixed = flow_schedule(FlowMatchEulerDiscreteScheduler(shift=3.0), 3, image_tokens=16)
    dynamic = flow_schedule(bench.pipeline.scheduler, 3, image_tokens=16)
    assert (fixed.timesteps - dynamic.timesteps).abs().max() > 10
    image = bench.draw([bench.row(PROMPTS[0], seed=8)])
    torch.testing.assert_close(image, bench.reference(PROMPTS[0], seed=8), rtol=0, atol=1e-4)


@pytest.mark.parametrize("variant", ["small_sd3", "small_sd35"])
def test_an_exported_adapter_draws_the_same_image_in_plain_diffusers(
    variant: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bench = make_bench(request.getfixturevalue(variant))
    exported = bench.bank.export(1)
    assert exported.scale == 1.5
    save_adapter(exported, tmp_path)
    bench.bank.load(2, load_adapter(tmp_path))
    image, base = bench.draw([bench.row(PROMPTS[0], slot=2, seed=5), bench.row(PROMPTS[0], slot=0, seed=5)])
    bench.bank.remove()
    torch.testing.assert_close(bench.reference(PROMPTS[0], seed=5)[0], base, rtol=0, atol=1e-4)
    bench.pipeline.load_lora_weights(tmp_path)
    torch.testing.assert_close(bench.reference(PROMPTS[0], seed=5)[0], image, rtol=0, atol=1e-4)
    assert (image - base).abs().max() > 0.05


def test_rows_leave_when_done_and_others_take_their_places(bench: Bench) -> None:
    """Continuous batching: as many forwards as the busiest place needs, and guided rows alone count twice."""
    sizes: list[int] = []
    transformer = bench.pipeline.transformer
    handle = transformer.register_forward_pre_hook(
        lambda _module, _args, inputs: sizes.append(len(inputs["hidden_states"])), with_kwargs=True
    )
    done: list[int] = []
    try:
        sample_latents(
            transformer,
            bench.bank,
            bench.pipeline.scheduler,
            [
                bench.row(PROMPTS[0], steps=steps, guidance=guidance)
                for steps, guidance in ((4, 1.0), (1, 2.0), (3, 1.0))
            ],
            height=16,
            width=16,
            vae_scale_factor=2,
            batch_rows=2,
            progress=done.append,
        )
    finally:
        handle.remove()
    assert sizes == [3, 2, 2, 2]
    assert done == [1, 3]


def test_rows_that_join_under_way_draw_the_same(bench: Bench) -> None:
    rows = mixed_rows(bench)
    pipe = bench.pipeline
    sampler = Sampler(pipe.transformer, bench.bank, pipe.scheduler, height=16, width=16, vae_scale_factor=2)
    finished: dict[int, Tensor] = {}
    for row in rows:
        sampler.admit([row])
        finished |= sampler.step()
    while len(sampler):
        finished |= sampler.step()
    assert sampler.step() == {} and sampler.admit([]) == []
    expected = sample_latents(
        pipe.transformer, bench.bank, pipe.scheduler, rows, height=16, width=16, vae_scale_factor=2
    )
    found = torch.stack([finished[ticket] for ticket in range(len(rows))])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-5)


def test_compiled_blocks_with_a_static_bank_draw_the_same_from_a_few_graphs(bench: Bench) -> None:
    """Rows leave at different times, so that batches of many sizes come up; one block shows it as well as all."""
    transformer = SD3Transformer2DModel.from_config(bench.pipeline.transformer.config).eval()
    transformer.load_state_dict(bench.pipeline.transformer.state_dict())
    bank = AdapterBank(transformer, slots=2, rank=4, static=True)
    for slot in (1, 2):
        bank.load(slot, bank.pack(bench.bank.export(slot)))
    counter = CompileCounterWithBackend("eager")
    transformer.transformer_blocks[0].compile(backend=counter, fullgraph=True)

    def draw(model: SD3Transformer2DModel, own: AdapterBank, rows: list[SampleRow]) -> Tensor:
        return sample_latents(
            model, own, bench.pipeline.scheduler, rows, height=16, width=16, vae_scale_factor=2
        )

    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=32):
        rows = mixed_rows(bench)
        expected = draw(bench.pipeline.transformer, bench.bank, rows)
        torch.testing.assert_close(draw(transformer, bank, rows), expected, rtol=1e-5, atol=2e-5)
        graphs = counter.frame_count
        assert graphs <= 4  # at one size, at any other, and at one row
        others = [replace(row, slot=2 - row.slot, seed=row.seed + 9) for row in rows]
        expected = draw(bench.pipeline.transformer, bench.bank, others)
        torch.testing.assert_close(draw(transformer, bank, others), expected, rtol=1e-5, atol=2e-5)
        assert counter.frame_count == graphs
    torch._dynamo.reset()


def test_a_bfloat16_transformer_keeps_float32_latents(bench: Bench) -> None:
    transformer = SD3Transformer2DModel.from_config(bench.pipeline.transformer.config).to(torch.bfloat16)
    latents = sample_latents(
        transformer,
        None,
        bench.pipeline.scheduler,
        [bench.row(PROMPTS[0])],
        height=16,
        width=16,
        vae_scale_factor=2,
    )
    assert latents.dtype == torch.float32
    assert torch.isfinite(latents).all()


def test_no_rows_are_no_images(bench: Bench) -> None:
    assert bench.draw([]).shape == (0, 3, 16, 16)


def test_wrong_requests_are_refused(bench: Bench) -> None:
    pipe = bench.pipeline
    row = bench.row(PROMPTS[0])
    for height, width in ((18, 16), (16, 4096), (0, 16)):
        with pytest.raises(UserError, match="multiples of 4 up to 32"):
            bench.draw([row], height=height, width=width)
    with pytest.raises(UserError, match="num_inference_steps is 0"):
        bench.draw([replace(row, num_inference_steps=0)])
    with pytest.raises(ValueError, match="needs a negative embedding"):
        bench.draw([replace(row, negative=None)])
    with pytest.raises(ValueError, match="slot 1 needs an adapter bank"):
        sample_latents(
            pipe.transformer,
            None,
            pipe.scheduler,
            [replace(row, slot=1)],
            height=16,
            width=16,
            vae_scale_factor=2,
        )
    with pytest.raises(UserError, match="stochastic_sampling"):
        flow_schedule(FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), 2, image_tokens=16)
    assert bench.draw([replace(row, negative=None, guidance_scale=1.0)]).shape == (1, 3, 16, 16)
