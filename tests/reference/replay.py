"""The steps of a captured run once more, by this project's own parts, on the same images and random draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from corrector.adapters import Adapter, AdapterBank
from corrector.base import (
    BaseSpec,
    TextEmbeddings,
    encode_images,
    encode_prompts,
    load_scheduler,
    load_transformer,
    load_vae,
)
from corrector.dreambooth.learning_rate import learning_rate
from corrector.dreambooth.objective import NoiseTable, loss_weights, noisy_latents, velocity
from corrector.dreambooth.optimiser import PackedAdamW
from corrector.dreambooth.packed_pass import SlotRows, packed_pass
from corrector.dreambooth.step_rows import StepRows
from corrector.prompts import HyperParameters
from tests.reference.recording import ReferenceStep, Weights
from tests.reference.script import ReferenceRun

_NEIGHBOUR_RANKS = (8, 2, 5)


@dataclass(frozen=True)
class ReplayedStep:
    """What this project makes of one step's images and draws; the names and shapes are :class:`ReferenceStep`'s."""

    latents: Tensor
    sigmas: Tensor
    timesteps: Tensor
    noisy: Tensor
    prediction: Tensor
    loss: Tensor
    gradients: Weights
    gradient_norm: Tensor
    weights: Weights
    learning_rate: float


@dataclass(frozen=True)
class Replay:
    """What this project makes of a run."""

    texts: TextEmbeddings
    """One row for every prompt."""
    steps: list[ReplayedStep]
    adapter: Adapter


def replay(
    run: ReferenceRun,
    spec: BaseSpec,
    prompts: Sequence[str],
    settings: HyperParameters,
    *,
    neighbours: int = 0,
) -> Replay:
    """Trains from the run's initial adapter with its images and draws, in float32 on the CPU.

    ``prompts`` are the instance prompt and, with prior preservation, the class prompt. ``neighbours`` other fine-tunes
    of other ranks share every forward and every optimiser step.
    """
    return _Replayer(run, spec, prompts, settings, neighbours).replay()


class _Replayer:
    def __init__(
        self,
        run: ReferenceRun,
        spec: BaseSpec,
        prompts: Sequence[str],
        settings: HyperParameters,
        neighbours: int,
    ) -> None:
        self._run, self._settings = run, settings
        self._vae = load_vae(spec, dtype=torch.float32)
        self._table = NoiseTable.of(load_scheduler(spec))
        self._transformer = load_transformer(spec, dtype=torch.float32)
        self._texts = TextEmbeddings.cat(list(encode_prompts(spec, prompts, cache=None).values()))
        self._slot = 1 + neighbours // 2
        others = [slot for slot in range(1, neighbours + 2) if slot != self._slot]
        ranks = {slot: _NEIGHBOUR_RANKS[slot % len(_NEIGHBOUR_RANKS)] for slot in others}
        rank = max(settings.rank, *ranks.values(), 1)
        self._bank = AdapterBank(self._transformer, slots=neighbours + 1, rank=rank, trainable=True)
        self._bank.load(self._slot, Adapter(settings.rank, float(settings.rank), run.initial))
        for slot in others:
            self._bank.initialise(slot, rank=ranks[slot], seed=slot)
        self._optimiser = PackedAdamW(self._bank)
        for slot in (self._slot, *others):
            self._optimiser.configure(slot, settings)

    def replay(self) -> Replay:
        steps = [self._step(number, drawn) for number, drawn in enumerate(self._run.steps)]
        return Replay(self._texts, steps, self._bank.export(self._slot))

    def _step(self, number: int, drawn: ReferenceStep) -> ReplayedStep:
        latents = encode_images(self._vae, drawn.pixels / 2 + 0.5).sample(drawn.posterior_noise)
        rows, sigmas = self._rows(latents, drawn.noise, drawn.u)
        prediction = self._predict(rows)
        slots = range(1, self._bank.slots + 1)
        parts = [
            SlotRows(slot, rows if slot == self._slot else self._other_rows(rows, number, slot), self._texts)
            for slot in slots
        ]
        exemplars, preserved = packed_pass(self._transformer, self._bank, parts)[self._slot - 1]
        gradients = self._gradients()
        rate = learning_rate(self._settings, number)
        norms = self._optimiser.step(dict.fromkeys(slots, rate))
        return ReplayedStep(
            latents=latents,
            sigmas=sigmas,
            timesteps=rows.timesteps,
            noisy=rows.noisy,
            prediction=prediction,
            loss=exemplars + self._settings.preservation_weight * preserved,
            gradients=gradients,
            gradient_norm=norms[self._slot - 1],
            weights=self._bank.export(self._slot).weights,
            learning_rate=rate,
        )

    def _rows(self, latents: Tensor, noise: Tensor, u: Tensor) -> tuple[StepRows, Tensor]:
        """The step as the packed pass takes it, and its sigmas ``[R]``: exemplars first, then class images."""
        settings, count = self._settings, self._settings.batch_size
        kept = len(latents) - count
        sigmas, timesteps = self._table.at(u)
        rows = StepRows(
            counts=(count, kept),
            exemplars=count,
            noisy=noisy_latents(latents, noise, sigmas),
            target=velocity(latents, noise),
            timesteps=timesteps,
            weights=loss_weights(
                settings.timestep_density, sigmas, precondition=settings.precondition_outputs
            ),
            shares=torch.tensor([1 / count] * count + [settings.preservation_weight / max(kept, 1)] * kept),
            texts=torch.tensor([0] * count + [1] * kept),
            guarded=False,
        )
        return rows, sigmas

    def _other_rows(self, like: StepRows, number: int, slot: int) -> StepRows:
        """What a neighbour in ``slot`` learns at a step: random latents, noise and levels."""
        generator = torch.Generator().manual_seed(1000 * number + slot)
        latents, noise = torch.randn(2, *like.noisy.shape, generator=generator)
        return self._rows(latents, noise, torch.rand(len(latents), generator=generator))[0]

    @torch.no_grad()
    def _predict(self, rows: StepRows) -> Tensor:
        with self._bank.rows([self._slot] * len(rows.texts)):
            prediction: Tensor = self._transformer(
                hidden_states=rows.noisy,
                timestep=rows.timesteps,
                encoder_hidden_states=self._texts.prompt[rows.texts],
                pooled_projections=self._texts.pooled[rows.texts],
                return_dict=False,
            )[0]
        return prediction

    def _gradients(self) -> Weights:
        rank = self._settings.rank
        given = {
            name: parameter.grad[self._slot]
            for name, parameter in self._bank.named_parameters()
            if parameter.grad is not None
        }
        return {
            path: (given[f"{path}.lora_A"][:rank].clone(), given[f"{path}.lora_B"][:, :rank].clone())
            for path in self._bank.targets
        }
