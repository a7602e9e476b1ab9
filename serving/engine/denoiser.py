"""Denoiser: the rows under way on one device, step by step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor

from corrector.adapters import AdapterBank, PackedAdapter
from corrector.base import TextEmbeddings
from corrector.sampling import Sampler, SampleRow
from serving.engine.request import ImageRequest
from serving.engine.slots import Slots


@dataclass(eq=False)
class Work:
    """A request with all that its rows need."""

    request: ImageRequest
    prompt: TextEmbeddings
    negative: TextEmbeddings | None
    """None where the request is not guided."""
    packed: PackedAdapter | None
    """None for the base."""
    previews: list[int] = field(default_factory=list)
    """Numbers of steps after which the image is shown as it stands, those to come."""
    steps: int = 0
    """Taken so far."""

    @property
    def rows(self) -> int:
        """Of the transformer, in every step."""
        return self.row(slot=0).forward_rows

    def row(self, slot: int) -> SampleRow:
        """What the sampler is given."""
        request = self.request
        return SampleRow(
            prompt=self.prompt,
            negative=self.negative,
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            slot=slot,
            seed=request.seed,
        )


@dataclass(frozen=True)
class Step:
    """What one step of everything brought: latents ``[C, h, w]``, normalised."""

    rows: int
    """Of the transformer, padding not counted, over all resolutions."""
    done: list[tuple[Work, Tensor]]
    shown: list[tuple[Work, Tensor]]
    """Previews that were due."""


class Denoiser:
    """Rows of any adapter, steps and guidance share a forward with all others of their resolution; not thread-safe.

    Resolutions take their steps one after the other, and share the room of the largest bucket.
    """

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        bank: AdapterBank,
        scheduler: FlowMatchEulerDiscreteScheduler,
        *,
        vae_scale_factor: int,
        row_buckets: Sequence[int],
    ) -> None:
        self._transformer = transformer
        self._scheduler = scheduler
        self._bank = bank
        self._factor = vae_scale_factor
        self._buckets = row_buckets
        self._samplers: dict[tuple[int, int], Sampler] = {}
        self._active: dict[tuple[int, int], dict[int, Work]] = {}
        self.slots = Slots(bank)

    def __len__(self) -> int:
        """Requests under way."""
        return sum(len(active) for active in self._active.values())

    @property
    def rows(self) -> int:
        """Of the transformer, that the requests under way take."""
        return sum(sampler.forward_rows for sampler in self._samplers.values())

    def has_room(self, work: Work) -> bool:
        """Whether `work` can be admitted now."""
        return self.rows + work.rows <= self._buckets[-1]

    def admit(self, work: Work) -> None:
        """`work` takes part from the next step on; its adapter is loaded where it is in no slot.

        Raises:
            AdapterError: The adapter does not fit the bank.
            UserError: The base cannot draw this size, or in so few steps.
        """
        request = work.request
        size = (request.height, request.width)
        sampler = self._samplers.get(size) or self._sampler(*size)
        slot = 0
        if request.adapter is not None:
            assert work.packed is not None
            slot = self.slots.acquire(request.adapter, work.packed)
        try:
            (ticket,) = sampler.admit([work.row(slot)])
        except BaseException:
            self._release(work)
            raise
        self._samplers[size] = sampler
        self._active.setdefault(size, {})[ticket] = work

    def cancel(self, works: Collection[Work]) -> None:
        """Takes requests out before they are done; those that are not under way count for nothing."""
        for size, active in list(self._active.items()):
            tickets = [ticket for ticket, work in active.items() if work in works]
            self._samplers[size].cancel(tickets)
            for ticket in tickets:
                self._release(active.pop(ticket))
            self._forget_if_idle(size)

    def step(self) -> Step:
        """One step of everything under way."""
        rows = self.rows
        done: list[tuple[Work, Tensor]] = []
        shown: list[tuple[Work, Tensor]] = []
        for size, active in list(self._active.items()):
            finished = self._samplers[size].step()
            for work in active.values():
                work.steps += 1
            shown += self._due(self._samplers[size], active)
            for ticket, latents in finished.items():
                work = active.pop(ticket)
                self._release(work)
                done.append((work, latents))
            self._forget_if_idle(size)
        return Step(rows, done, shown)

    def _due(self, sampler: Sampler, active: dict[int, Work]) -> list[tuple[Work, Tensor]]:
        """Previews; one that is due when rows come or go is shown a step later."""
        due = {
            ticket: work
            for ticket, work in active.items()
            if work.previews and work.steps >= work.previews[0]
        }
        shown = []
        for ticket, latents in sampler.denoised(due).items() if due else ():
            del due[ticket].previews[0]
            shown.append((due[ticket], latents))
        return shown

    def _sampler(self, height: int, width: int) -> Sampler:
        return Sampler(
            self._transformer,
            self._bank,
            self._scheduler,
            height=height,
            width=width,
            vae_scale_factor=self._factor,
            row_buckets=self._buckets,
        )

    def _forget_if_idle(self, size: tuple[int, int]) -> None:
        """Sizes come from outside: nothing is kept of one that nobody is drawing."""
        if not self._active[size]:
            del self._active[size], self._samplers[size]

    def _release(self, work: Work) -> None:
        if work.request.adapter is not None:
            self.slots.release(work.request.adapter)
