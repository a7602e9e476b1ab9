"""Every model of the SD3 family, at its true widths and a depth of two blocks, from training to plain diffusers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

from corrector.adapters import SD3_TARGETS, Adapter, AdapterBank, load_adapter, save_adapter
from corrector.base import LatentPosterior, TextEmbeddings
from corrector.dreambooth import Engine, FineTune, StepReport
from corrector.prompts import HyperParameters
from tests.support.sd3_family import VAE_SCALE_FACTOR, Model, random_transformer
from tests.support.small_tasks import resume, save

LAYERS = 2
RANK = 8
RESOLUTION = 64
TOKENS = 6
SCHEDULER = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)


@dataclass(frozen=True)
class Base:
    """A transformer of the family."""

    model: Model
    transformer: SD3Transformer2DModel


@dataclass(frozen=True)
class Outcome:
    """What became of a pack's fine-tunes, by name."""

    histories: dict[str, list[StepReport]]
    adapters: dict[str, Adapter]


@dataclass(frozen=True)
class Trained:
    """Two fine-tunes to their end, and the checkpoint after their first step."""

    checkpoint: Path
    outcome: Outcome


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("sd3-medium", torch.float32), id="sd3-medium float32"),
        *(
            pytest.param(
                (model, dtype), id=f"{model} {str(dtype).removeprefix('torch.')}", marks=pytest.mark.slow
            )
            for model, dtype in (
                ("sd3-medium", torch.bfloat16),
                ("sd3.5-medium", torch.float32),
                ("sd3.5-large", torch.float32),
            )
        ),
    ],
)
def base(request: pytest.FixtureRequest) -> Base:
    model, dtype = request.param
    return Base(model, random_transformer(model, layers=LAYERS, dtype=dtype))


@pytest.fixture(scope="module")
def trained(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    engine = pack(base)
    for task in tasks(base):
        engine.admit(task)
    engine.step()
    checkpoint = save(engine, tmp_path_factory.mktemp("family") / "checkpoint")
    return Trained(checkpoint, finish(engine))


def pack(base: Base) -> Engine:
    return Engine(base.transformer, SCHEDULER, slots=2, rank=RANK, base_revision=base.model)


def finish(engine: Engine) -> Outcome:
    """Trains on to the end, and leaves the transformer as it was."""
    while engine.active:
        engine.step()
    histories = {name: engine.history(name) for name in engine.finished}
    adapters = {name: engine.release(name) for name in engine.finished}
    engine.bank.remove()
    return Outcome(histories, adapters)


def tasks(base: Base) -> list[FineTune]:
    """Two of different ranks, lengths and preservation."""
    common: dict[str, Any] = {"batch_size": 1, "learning_rate": 1e-2}
    return [
        fine_tune(base, "lying", HyperParameters(rank=RANK, steps=2, preservation="guard", seed=1, **common)),
        fine_tune(
            base, "sitting", HyperParameters(rank=4, alpha=6, steps=3, preservation="none", seed=2, **common)
        ),
    ]


def fine_tune(base: Base, name: str, settings: HyperParameters) -> FineTune:
    config, generator = base.transformer.config, torch.Generator().manual_seed(settings.seed)
    side = RESOLUTION // VAE_SCALE_FACTOR
    mean = torch.randn(3, config.in_channels, side, side, generator=generator)
    return FineTune(
        name=name,
        posterior=LatentPosterior(mean, torch.full_like(mean, 0.05)),
        prompt=texts(base, generator),
        guards=texts(base, generator),
        hyperparameters=settings,
    )


def texts(base: Base, generator: torch.Generator) -> TextEmbeddings:
    config = base.transformer.config
    return TextEmbeddings(
        torch.randn(1, TOKENS, config.joint_attention_dim, generator=generator),
        torch.randn(1, config.pooled_projection_dim, generator=generator),
    )


@torch.no_grad()
def prediction(base: Base, bank: AdapterBank | None = None) -> torch.Tensor:
    """Of one row of fixed inputs; with ``bank`` through its slot 1."""
    transformer, generator = base.transformer, torch.Generator().manual_seed(9)
    given = texts(base, generator).to(dtype=transformer.dtype)
    side = RESOLUTION // VAE_SCALE_FACTOR
    latents = torch.randn(1, transformer.config.in_channels, side, side, generator=generator)
    inputs = {
        "hidden_states": latents.to(transformer.dtype),
        "timestep": torch.tensor([600.0]),
        "encoder_hidden_states": given.prompt,
        "pooled_projections": given.pooled,
    }
    if bank is None:
        return transformer(**inputs).sample.float()
    with bank.rows([1]):
        return transformer(**inputs).sample.float()


def test_losses_are_finite_and_every_layer_learns(base: Base, trained: Trained) -> None:
    histories = trained.outcome.histories
    assert {name: len(reports) for name, reports in histories.items()} == {"lying": 2, "sitting": 3}
    assert all(report.finite and report.grad_norm > 0 for reports in histories.values() for report in reports)
    for adapter in trained.outcome.adapters.values():
        assert {path.split(".", 2)[2] for path in adapter.weights} == set(SD3_TARGETS)
        for path, (down, up) in adapter.weights.items():
            assert down.dtype == up.dtype == torch.float32
            # The last block has no text after it, so what its text asks of the image is read by nobody.
            unread = path == f"transformer_blocks.{LAYERS - 1}.attn.add_q_proj"
            assert bool(up.any()) != unread, path


def test_a_pack_resumed_from_its_checkpoint_ends_the_same(base: Base, trained: Trained) -> None:
    engine = pack(base)
    resume(engine, trained.checkpoint)
    assert engine.active == ["lying", "sitting"]
    resumed, undisturbed = finish(engine), trained.outcome
    assert resumed.histories == undisturbed.histories
    for name, adapter in undisturbed.adapters.items():
        for path, (down, up) in resumed.adapters[name].weights.items():
            assert torch.equal(down, adapter.weights[path][0]) and torch.equal(up, adapter.weights[path][1])


def test_a_saved_adapter_predicts_in_plain_diffusers_as_in_the_bank(
    base: Base, trained: Trained, tmp_path: Path
) -> None:
    plain = prediction(base)
    absent = dict.fromkeys(
        ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3")
    )
    for name, adapter in trained.outcome.adapters.items():
        save_adapter(adapter, tmp_path / name)
        bank = AdapterBank(base.transformer, slots=1, rank=RANK, base_revision=base.model)
        bank.load(1, load_adapter(tmp_path / name))
        expected = prediction(base, bank)
        bank.remove()
        pipeline = StableDiffusion3Pipeline(
            transformer=base.transformer, scheduler=SCHEDULER, tokenizer_3=None, **absent
        )
        pipeline.load_lora_weights(tmp_path / name)
        found = prediction(base)
        pipeline.unload_lora_weights()
        apart, change = (found - expected).norm(), (expected - plain).norm()
        assert change > 0.01 * plain.norm()
        assert apart < (1e-5 if base.transformer.dtype == torch.float32 else 0.02) * change
    assert torch.equal(prediction(base), plain)
