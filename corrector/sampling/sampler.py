"""Sampler: continuous batching of denoising; rows enter and leave the batch at any step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from corrector.adapters import AdapterBank, copy_to_device
from corrector.base import TextEmbeddings
from corrector.errors import UserError
from corrector.sampling.schedule import FlowSchedule, flow_schedule

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel


@dataclass(frozen=True)
class SampleRow:
    """One image to sample."""

    prompt: TextEmbeddings
    """One row."""
    negative: TextEmbeddings | None
    """One row, of the negative or the empty prompt; read only where ``guidance_scale`` is above 1."""
    num_inference_steps: int
    guidance_scale: float
    """Classifier-free guidance; at 1 or below there is none and the row costs half."""
    slot: int = 0
    """Slot of the adapter bank; 0 is the base."""
    seed: int = 0

    @property
    def guided(self) -> bool:
        """Whether classifier-free guidance applies."""
        return self.guidance_scale > 1

    @property
    def forward_rows(self) -> int:
        """Rows of the transformer's batch that it takes: two where it is guided."""
        return 2 if self.guided else 1


class Sampler:
    """Euler steps on rows that share every forward, each at its own step of its own schedule.

    A row's result depends on the row alone, up to the rounding of differently shaped matrix products. Its noise is drawn
    from its seed on the CPU in float32, as ``StableDiffusion3Pipeline`` does with a CPU generator. Latents are float32. No
    step waits for the device if the embeddings are there. The transformer's blocks may be compiled, with a static bank.

    With ``row_buckets`` every forward is padded with rows of the base to the smallest of these numbers that suffices. Then
    few shapes are compiled, and with a static or row-wise bank equal buckets give equal rows to the bit.
    """

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        bank: AdapterBank | None,
        scheduler: FlowMatchEulerDiscreteScheduler,
        *,
        height: int,
        width: int,
        vae_scale_factor: int,
        row_buckets: Sequence[int] = (),
        device: torch.device | str | None = None,
    ) -> None:
        """``height`` and ``width`` are in pixels; raises :class:`UserError` for a size that the base cannot draw.

        More rows than the largest of ``row_buckets`` are not padded. ``device`` is where the transformer computes; None:
        where its weights are, which is wrong for an offloaded one.
        """
        self._transformer = transformer
        self._bank = bank
        self._scheduler = scheduler
        self._shape = latent_shape(transformer.config, height, width, vae_scale_factor)
        self._buckets = sorted(row_buckets)
        self._schedules: dict[int, FlowSchedule] = {}
        self._active: list[_Active] = []
        self._latents = torch.empty(0, *self._shape, device=device or transformer.device)
        self._layout: _Layout | None = None
        self._admitted = 0

    def __len__(self) -> int:
        """Rows in the batch."""
        return len(self._active)

    @property
    def forward_rows(self) -> int:
        """Rows of the transformer's batch that all rows take, without padding."""
        return sum(active.row.forward_rows for active in self._active)

    def admit(self, rows: Sequence[SampleRow]) -> list[int]:
        """Adds ``rows`` to the batch from the next step on; returns a ticket for each.

        Raises ``ValueError``, and adds none, if a guided row has no negative embedding, or a row has a slot and there is
        no bank.
        """
        for row in rows:
            if row.guided and row.negative is None:
                raise ValueError(f"guidance_scale {row.guidance_scale} needs a negative embedding")
            if row.slot and self._bank is None:
                raise ValueError(f"slot {row.slot} needs an adapter bank")
        if not rows:
            return []
        tickets = list(range(self._admitted, self._admitted + len(rows)))
        newcomers = [
            _Active(ticket, row, self._schedule(row)) for ticket, row in zip(tickets, rows, strict=True)
        ]
        noise = [
            torch.randn((1, *self._shape), generator=torch.Generator("cpu").manual_seed(row.seed))
            for row in rows
        ]
        self._end_layout()
        self._active += newcomers
        self._latents = torch.cat([self._latents, copy_to_device(torch.cat(noise), self._latents.device)])
        self._admitted += len(rows)
        return tickets

    def cancel(self, tickets: Collection[int]) -> None:
        """Removes rows before they are done; unknown tickets are ignored."""
        if any(active.ticket in tickets for active in self._active):
            self._end_layout()
            self._keep([active.ticket not in tickets for active in self._active])

    def denoised(self, tickets: Collection[int]) -> dict[int, Tensor]:
        """The predicted final latents ``[C, h, w]`` of each row by its last velocity: ``x - sigma v``.

        Rows that are not in the batch, or have made no step since rows came or went, are left out.
        """
        layout = self._layout
        if layout is None or layout.velocity is None:
            return {}
        found = {}
        for place, active in enumerate(self._active):
            if active.ticket in tickets:
                ahead = float(active.schedule.deltas[active.done + layout.taken :].sum())
                found[active.ticket] = self._latents[place] + ahead * layout.velocity[place]
        return found

    @torch.no_grad()
    def step(self) -> dict[int, Tensor]:
        """One step of every row; removes the rows that are done and returns their latents ``[C, h, w]`` by ticket."""
        if not self._active:
            return {}
        layout = self._layout
        if layout is None:
            layout = self._layout = self._arrange()
        layout.velocity = self._velocity(layout)
        self._latents = self._latents + layout.deltas[layout.taken] * layout.velocity
        layout.taken += 1
        return self._release() if layout.taken == len(layout.deltas) else {}

    def _velocity(self, layout: _Layout) -> Tensor:
        """The guided velocity ``[b, C, h, w]`` float32 of all rows."""
        rows: AbstractContextManager[None] = nullcontext()
        if self._bank is not None:
            rows = self._bank.rows(layout.slots)
        with rows:
            predicted = self._transformer(
                hidden_states=self._latents[layout.source].to(self._transformer.dtype),
                timestep=layout.timesteps[layout.taken],
                encoder_hidden_states=layout.embeddings.prompt,
                pooled_projections=layout.embeddings.pooled,
                return_dict=False,
            )[0].float()
        conditional: Tensor = predicted[layout.conditional]
        if layout.guidance is None:
            return conditional
        unconditional = predicted[layout.unconditional]
        return unconditional + layout.guidance * (conditional - unconditional)

    def _arrange(self) -> _Layout:
        """Sorts the rows by slot and prepares all forwards until the first row is done."""
        order = sorted(range(len(self._active)), key=lambda place: self._active[place].row.slot)
        self._active = [self._active[place] for place in order]
        self._latents = self._latents.index_select(0, self._indices(order))
        rows = [active.row for active in self._active]
        places = _places(rows)
        number = {place: index for index, place in enumerate(places)}
        conditional = [number[row, False] for row in range(len(rows))]
        unconditional = [number.get((row, True), conditional[row]) for row in range(len(rows))]
        guidance = torch.tensor([row.guidance_scale if row.guided else 1.0 for row in rows])
        padding = self._padding(len(places))
        source = torch.tensor([row for row, _ in places] + [0] * padding)
        steps = min(active.remaining for active in self._active)
        timesteps = torch.stack(
            [active.schedule.timesteps[active.done :][:steps] for active in self._active], dim=1
        )
        deltas = torch.stack(
            [active.schedule.deltas[active.done :][:steps] for active in self._active], dim=1
        )
        device = self._latents.device
        return _Layout(
            slots=[rows[row].slot for row, _ in places] + [0] * padding,
            source=copy_to_device(source, device),
            conditional=self._indices(conditional),
            unconditional=self._indices(unconditional),
            guidance=copy_to_device(guidance.view(-1, 1, 1, 1), device)
            if any(row.guided for row in rows)
            else None,
            embeddings=TextEmbeddings.cat(
                [_embeddings(rows[row], negative) for row, negative in places] + [rows[0].prompt] * padding
            ).to(device, self._transformer.dtype),
            timesteps=copy_to_device(timesteps[:, source], device),
            deltas=copy_to_device(deltas[:, :, None, None, None], device),
        )

    def _indices(self, places: Sequence[int]) -> Tensor:
        """``places`` on the device; a list as an index would make the host wait for it."""
        return copy_to_device(torch.tensor(places, dtype=torch.int64), self._latents.device)

    def _release(self) -> dict[int, Tensor]:
        self._end_layout()
        finished = {
            active.ticket: latents
            for active, latents in zip(self._active, self._latents, strict=True)
            if active.remaining == 0
        }
        self._keep([active.remaining > 0 for active in self._active])
        return finished

    def _keep(self, stays: Sequence[bool]) -> None:
        staying = [place for place, stay in enumerate(stays) if stay]
        self._latents = self._latents.index_select(0, self._indices(staying))
        self._active = [self._active[place] for place in staying]

    def _padding(self, rows: int) -> int:
        return next((bucket - rows for bucket in self._buckets if bucket >= rows), 0)

    def _end_layout(self) -> None:
        if self._layout is not None:
            for active in self._active:
                active.done += self._layout.taken
            self._layout = None

    def _schedule(self, row: SampleRow) -> FlowSchedule:
        steps = row.num_inference_steps
        if steps not in self._schedules:
            patch = self._transformer.config.patch_size
            tokens = (self._shape[1] // patch) * (self._shape[2] // patch)
            self._schedules[steps] = flow_schedule(self._scheduler, steps, image_tokens=tokens)
        return self._schedules[steps]


@dataclass
class _Active:
    """A row in the batch; ``done`` counts its steps before the present layout."""

    ticket: int
    row: SampleRow
    schedule: FlowSchedule
    done: int = 0

    @property
    def remaining(self) -> int:
        return len(self.schedule) - self.done


@dataclass
class _Layout:
    """The inputs of all forwards with the same ``b`` rows.

    The transformer's batch has ``b'`` rows: each row's prompt, its negative prompt where it is guided, and padding.
    """

    slots: list[int]
    """``b'`` slots of the bank."""
    source: Tensor
    """``[b']``: which of the ``b`` latents the transformer's row reads."""
    conditional: Tensor
    """``[b]``: where a row's prompt stands among the transformer's rows."""
    unconditional: Tensor
    """``[b]``: where its negative prompt stands; its prompt where it is not guided."""
    guidance: Tensor | None
    """``[b, 1, 1, 1]``, or None where no row is guided."""
    embeddings: TextEmbeddings
    """``b'`` rows."""
    timesteps: Tensor
    """``[steps, b']``."""
    deltas: Tensor
    """``[steps, b, 1, 1, 1]``."""
    taken: int = 0
    """Steps taken."""
    velocity: Tensor | None = None
    """``[b, C, h, w]``: the last step's prediction."""


def _places(rows: Sequence[SampleRow]) -> list[tuple[int, bool]]:
    """(row, is its negative prompt) in the transformer's order: slot by slot, so that the bank has long runs."""
    places: list[tuple[int, bool]] = []
    for _, group in groupby(range(len(rows)), key=lambda row: rows[row].slot):
        members = list(group)
        places += [(row, False) for row in members] + [(row, True) for row in members if rows[row].guided]
    return places


def _embeddings(row: SampleRow, negative: bool) -> TextEmbeddings:
    chosen = row.negative if negative else row.prompt
    assert chosen is not None
    return chosen


def latent_shape(config: Any, height: int, width: int, vae_scale_factor: int) -> tuple[int, int, int]:
    """``(C, h, w)`` of an image of ``height`` x ``width`` pixels, for a transformer's ``config``.

    Raises :class:`UserError` for a size that the base cannot draw.
    """
    unit = vae_scale_factor * config.patch_size
    largest = unit * config.pos_embed_max_size
    for side in (height, width):
        if side % unit or not unit <= side <= largest:
            raise UserError(
                f"images of {width} x {height} pixels: this base draws sides that are multiples of {unit} "
                f"up to {largest}"
            )
    return config.in_channels, height // vae_scale_factor, width // vae_scale_factor
