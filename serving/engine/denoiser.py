"""Denoiser: continuous batching of denoising steps on one device."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor

from corrector.adapters import AdapterBank
from corrector.sampling import Sampler
from serving.engine.adapter_slots import AdapterSlots
from serving.engine.request_state import RequestState


@dataclass(frozen=True)
class StepOutput:
    """The result of one step of the batch; latents are ``[C, h, w]``, normalised.

    Attributes:
        rows: Rows of the transformer over all resolutions, without padding.
        finished: Requests that took their last step, with their latents.
        previews: Requests with a preview to show, with their latents.
    """

    rows: int
    finished: list[tuple[RequestState, Tensor]]
    previews: list[tuple[RequestState, Tensor]]


class Denoiser:
    """All requests of one resolution share a forward, with any adapters, timesteps and guidance; not thread-safe.

    Resolutions take their steps one after the other; the largest bucket limits their rows together.
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
        self._active: dict[tuple[int, int], dict[int, RequestState]] = {}
        """By size, and by the sampler's ticket."""
        self.slots = AdapterSlots(bank)

    def __len__(self) -> int:
        """Requests in the batch."""
        return sum(len(active) for active in self._active.values())

    @property
    def rows(self) -> int:
        """Rows of the transformer that the requests in the batch take."""
        return sum(sampler.forward_rows for sampler in self._samplers.values())

    def has_room(self, state: RequestState) -> bool:
        """Whether the request can be admitted now."""
        return self.rows + state.rows <= self._buckets[-1]

    def admit(self, state: RequestState) -> None:
        """Add the request to the batch before its next step; load its adapter where it is in no slot.

        Raises:
            AdapterError: The adapter does not fit the bank.
            UserError: The base cannot draw this size, or in so few steps.
        """
        request, inputs = state.request, state.inputs
        size = (request.height, request.width)
        sampler = self._samplers.get(size) or self._sampler(*size)
        slot = 0
        if request.adapter is not None:
            assert inputs is not None and inputs.adapter is not None
            slot = self.slots.acquire(request.adapter, inputs.adapter)
        try:
            (ticket,) = sampler.admit([state.row(slot)])
        except BaseException:
            self._release(state)
            raise
        self._samplers[size] = sampler
        self._active.setdefault(size, {})[ticket] = state

    def cancel(self, states: Collection[RequestState]) -> None:
        """Remove requests from the batch before they are done; those that are not in it are ignored."""
        for size, active in list(self._active.items()):
            tickets = [ticket for ticket, state in active.items() if state in states]
            self._samplers[size].cancel(tickets)
            for ticket in tickets:
                self._release(active.pop(ticket))
            self._drop_if_idle(size)

    def step(self) -> StepOutput:
        """One denoising step of every request in the batch."""
        output = StepOutput(self.rows, [], [])
        for size, active in list(self._active.items()):
            finished = self._samplers[size].step()
            for state in active.values():
                state.steps += 1
            output.previews.extend(self._due_previews(self._samplers[size], active))
            for ticket, latents in finished.items():
                state = active.pop(ticket)
                self._release(state)
                output.finished.append((state, latents))
            self._drop_if_idle(size)
        return output

    def _due_previews(
        self, sampler: Sampler, active: dict[int, RequestState]
    ) -> list[tuple[RequestState, Tensor]]:
        """Requests with a preview to show; a preview is delayed by a step when rows are added or removed at its step."""
        due = {
            ticket: state
            for ticket, state in active.items()
            if state.preview_steps and state.steps >= state.preview_steps[0]
        }
        shown = []
        for ticket, latents in sampler.denoised(due).items() if due else ():
            del due[ticket].preview_steps[0]
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

    def _drop_if_idle(self, size: tuple[int, int]) -> None:
        """Remove the sampler of `size` where no request uses it; clients choose sizes, so there could be many."""
        if not self._active[size]:
            del self._active[size], self._samplers[size]

    def _release(self, state: RequestState) -> None:
        if state.request.adapter is not None:
            self.slots.release(state.request.adapter)
