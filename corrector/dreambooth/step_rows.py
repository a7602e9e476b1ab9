"""The training rows of one fine-tune, step by step, drawn by a generator of its own."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from corrector.base import LatentPosterior
from corrector.dreambooth.finetune import FineTune
from corrector.dreambooth.objective import NoiseTable, loss_weights, noisy_latents, sample_density, velocity

_SEED_MASK = 0x9E3779B9  # keeps these draws apart from the adapter's initial weights, which use the bare seed


@dataclass(frozen=True)
class StepRows:
    """The rows of one step of one fine-tune, on the CPU: exemplar rows with its prompt, then preservation rows."""

    counts: tuple[int, int]
    """Exemplar and preservation rows of the whole step, of which these rows may be a :meth:`span`."""
    exemplars: int
    """How many of these rows are exemplar rows; they come first."""
    noisy: Tensor
    """``[R, C, h, w]``."""
    target: Tensor
    """Velocity to predict, ``[R, C, h, w]``; with ``guarded`` the preservation rows' are the base's to give."""
    timesteps: Tensor
    """``[R]``."""
    weights: Tensor
    """Loss weights ``[R]``."""
    shares: Tensor
    """Weight of a row's loss in the fine-tune's loss, ``[R]``: that of its kind over its mean number of rows in a step."""
    texts: Tensor
    """Row of the fine-tune's text embeddings, ``[R]``."""
    guarded: bool

    def __len__(self) -> int:
        return len(self.texts)

    def span(self, start: int, stop: int) -> "StepRows":
        """Rows ``[start, stop)`` with their shares in the step's loss."""
        rows = slice(start, stop)
        return replace(
            self,
            exemplars=min(max(self.exemplars - start, 0), stop - start),
            noisy=self.noisy[rows],
            target=self.target[rows],
            timesteps=self.timesteps[rows],
            weights=self.weights[rows],
            shares=self.shares[rows],
            texts=self.texts[rows],
        )


class RowSampler:
    """Draws exemplars, noise and timesteps for every step of ``task``; draws do not depend on the rest of the pack.

    At 1024² a row takes 524,288 normal numbers, for which a fast GPU would wait: :meth:`prefetch` draws them while the
    device is busy.
    """

    def __init__(self, task: FineTune, table: NoiseTable) -> None:
        self._task = task
        self._table = table
        self._generator = torch.Generator("cpu").manual_seed(task.hyperparameters.seed ^ _SEED_MASK)
        self._exemplars = _Shuffle(len(task.posterior.mean))
        self._class_images = _Shuffle(0 if task.class_posterior is None else len(task.class_posterior.mean))
        self._guards = _Shuffle(0 if task.guards is None else len(task.guards))
        self._prefetched: tuple[dict[str, Any], StepRows] | None = None
        self._step = 0

    def prefetch(self) -> None:
        """Draws the next step's rows now; changes neither what :meth:`next` returns nor what :meth:`state` does."""
        if self._prefetched is None:
            state = self.state()
            self._prefetched = state, self._draw()

    def next(self) -> StepRows:
        if self._prefetched is None:
            return self._draw()
        (_, rows), self._prefetched = self._prefetched, None
        return rows

    def _draw(self) -> StepRows:
        settings, generator = self._task.hyperparameters, self._generator
        count, preserved = settings.batch_size, settings.preservation_rows(self._step)
        self._step += 1
        prior = settings.preservation == "prior"
        mean, std = self._exemplar_moments(count)
        if prior and self._task.class_posterior is not None:
            drawn = self._class_images.take(preserved, generator)
            mean = torch.cat([mean, self._task.class_posterior.mean[drawn]])
            std = torch.cat([std, self._task.class_posterior.std[drawn]])
        spread, noise = torch.randn((2, *mean.shape), generator=generator)
        latents = LatentPosterior(mean, std).sample(spread)
        u = sample_density(
            settings.timestep_density,
            len(latents),
            logit_mean=settings.logit_mean,
            logit_std=settings.logit_std,
            mode_scale=settings.mode_scale,
            generator=generator,
        )
        sigmas, timesteps = self._table.at(u)
        noisy, target = noisy_latents(latents, noise, sigmas), velocity(latents, noise)
        texts = torch.zeros(count, dtype=torch.long)
        if prior:
            texts = torch.cat([texts, torch.ones(preserved, dtype=torch.long)])
        elif preserved:
            again = torch.cat([torch.arange(count), torch.arange(preserved) % count])
            noisy, target, sigmas, timesteps = noisy[again], target[again], sigmas[again], timesteps[again]
            texts = torch.cat([texts, 1 + self._guards.take(preserved, generator)])
        weights = loss_weights(settings.timestep_density, sigmas, precondition=settings.precondition_outputs)
        shares = torch.full((count + preserved,), 1.0 / count)
        if preserved:
            shares[count:] = settings.preservation_weight / settings.mean_preservation_rows
        guarded = bool(preserved) and not prior
        return StepRows((count, preserved), count, noisy, target, timesteps, weights, shares, texts, guarded)

    def state(self) -> dict[str, Any]:
        """The generator's state and the items left in each shuffle."""
        if self._prefetched is not None:
            return self._prefetched[0]
        return {
            "generator": self._generator.get_state(),
            "exemplars": list(self._exemplars.left),
            "class_images": list(self._class_images.left),
            "guards": list(self._guards.left),
        }

    def restore(self, state: Mapping[str, Any], step: int) -> None:
        """Continues from what :meth:`state` returned after ``step`` steps."""
        self._prefetched, self._step = None, step
        self._generator.set_state(state["generator"])
        self._exemplars.left = list(state["exemplars"])
        self._class_images.left = list(state["class_images"])
        self._guards.left = list(state["guards"])

    def _exemplar_moments(self, count: int) -> tuple[Tensor, Tensor]:
        posterior, mirrored = self._task.posterior, self._task.mirrored_posterior
        drawn = self._exemplars.take(count, self._generator)
        mean, std = posterior.mean[drawn], posterior.std[drawn]
        if self._task.hyperparameters.horizontal_flip and mirrored is not None:
            flip = (torch.rand(count, generator=self._generator) < 0.5).view(-1, 1, 1, 1)
            mean = torch.where(flip, mirrored.mean[drawn], mean)
            std = torch.where(flip, mirrored.std[drawn], std)
        return mean, std


class _Shuffle:
    """Draws without replacement from ``count`` items, shuffled anew when all have been drawn."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.left: list[int] = []

    def take(self, number: int, generator: torch.Generator) -> Tensor:
        while len(self.left) < number:
            self.left += torch.randperm(self._count, generator=generator).tolist()
        taken, self.left = self.left[:number], self.left[number:]
        return torch.tensor(taken, dtype=torch.long)
