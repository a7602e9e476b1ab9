"""One forward and backward for the rows of many fine-tunes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from corrector.adapters import AdapterBank
from corrector.base import TextEmbeddings
from corrector.dreambooth.objective import row_losses
from corrector.dreambooth.step_rows import StepRows

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel


@dataclass(frozen=True)
class SlotRows:
    """The rows of one slot in a step, or some of them."""

    slot: int
    rows: StepRows
    texts: TextEmbeddings
    """The fine-tune's text embeddings on the transformer's device, in its dtype."""

    def __len__(self) -> int:
        return len(self.rows)

    def row_tokens(self, patch: int) -> int:
        """Tokens of one row in the transformer: patches of ``patch`` by ``patch`` latents, and text."""
        height, width = self.rows.noisy.shape[2:]
        return (height // patch) * (width // patch) + self.texts.prompt.shape[1]

    def row_costs(self, patch: int) -> list[int]:
        """Relative cost of every row: forward and backward of a frozen base are two forwards, a guarded row is three."""
        tokens = self.row_tokens(patch)
        guarded = len(self) - self.rows.exemplars if self.rows.guarded else 0
        return [2 * tokens] * (len(self) - guarded) + [3 * tokens] * guarded

    def span(self, start: int, stop: int) -> SlotRows:
        """Rows ``[start, stop)`` of these."""
        return replace(self, rows=self.rows.span(start, stop))


def same_shape_groups(slots: Sequence[SlotRows]) -> list[list[SlotRows]]:
    """Groups that can share a forward: equal latent shape and number of text tokens."""
    groups: defaultdict[tuple[int, ...], list[SlotRows]] = defaultdict(list)
    for each in slots:
        groups[*each.rows.noisy.shape[1:], each.texts.prompt.shape[1]].append(each)
    return list(groups.values())


def packed_pass(
    transformer: SD3Transformer2DModel,
    bank: AdapterBank,
    slots: Sequence[SlotRows],
    micro_batch: int | None = None,
) -> Tensor:
    """Adds each slot's gradient to its weights and returns the losses ``[len(slots), 2]``: exemplars, preservation.

    The slots must be one of :func:`same_shape_groups`. The sum of their losses is differentiated; rows share nothing, so a
    slot's gradient is what it would be alone. A loss is the contribution of the given rows to the mean over the step's
    rows of that kind: the mean itself where all of them are given, 0 where none is. At most ``micro_batch`` rows (None:
    all) go through a forward and backward at a time. Nothing here waits for the device.
    """
    batch = _Batch.of(slots)
    if len(batch.guarded):
        for some in batch.guarded.split(micro_batch or len(batch.guarded)):
            with torch.no_grad():
                batch.target[some] = batch.predict(transformer, some).float()
    losses = []
    for rows in _micro_batches(slots, micro_batch):
        with bank.rows(batch.slots[rows]):
            loss = row_losses(batch.predict(transformer, rows), batch.target[rows], batch.weights[rows])
            (loss * batch.shares[rows]).sum().backward()
        losses.append(loss.detach())
    return _means(torch.cat(losses), slots)


@dataclass(frozen=True)
class _Batch:
    """The rows of all slots one after another, on the transformer's device."""

    slots: list[int]
    guarded: Tensor
    """Indices of the rows whose target is the base's prediction."""
    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    weights: Tensor
    shares: Tensor
    texts: TextEmbeddings

    @staticmethod
    def of(slots: Sequence[SlotRows]) -> _Batch:
        device, dtype = slots[0].texts.prompt.device, slots[0].texts.prompt.dtype
        rows = [each.rows for each in slots]
        guarded = [
            torch.arange(len(each)) >= (each.exemplars if each.guarded else len(each)) for each in rows
        ]

        def joined(tensors: Sequence[Tensor]) -> Tensor:
            return _to_device(tensors, device)

        texts = joined([each.texts for each in rows]).split([len(each) for each in rows])
        return _Batch(
            slots=[each.slot for each in slots for _ in range(len(each))],
            guarded=joined([torch.cat(guarded).nonzero().flatten()]),
            noisy=joined([each.noisy for each in rows]).to(dtype),
            target=joined([each.target for each in rows]),
            timesteps=joined([each.timesteps for each in rows]),
            weights=joined([each.weights for each in rows]),
            shares=joined([each.shares for each in rows]),
            texts=TextEmbeddings.cat([each.texts[index] for each, index in zip(slots, texts, strict=True)]),
        )

    def predict(self, transformer: SD3Transformer2DModel, rows: Tensor | slice) -> Tensor:
        """Predicted velocity of ``rows``, in the transformer's dtype."""
        prediction: Tensor = transformer(
            hidden_states=self.noisy[rows],
            timestep=self.timesteps[rows],
            encoder_hidden_states=self.texts.prompt[rows],
            pooled_projections=self.texts.pooled[rows],
            return_dict=False,
        )[0]
        return prediction


def _to_device(tensors: Sequence[Tensor], device: torch.device) -> Tensor:
    """The concatenated tensors on ``device``, through page-locked memory so that the host does not wait."""
    shape = (sum(len(tensor) for tensor in tensors), *tensors[0].shape[1:])
    host = torch.empty(shape, dtype=tensors[0].dtype, pin_memory=device.type == "cuda")
    return torch.cat(list(tensors), out=host).to(device, non_blocking=True)


def _micro_batches(slots: Sequence[SlotRows], limit: int | None) -> Iterator[slice]:
    """Slices of at most ``limit`` rows; a slot is cut only where it is longer than that."""
    start = stop = 0
    for each in slots:
        if limit is not None and stop > start and stop + len(each) - start > limit:
            yield slice(start, stop)
            start = stop
        stop += len(each)
        while limit is not None and stop - start > limit:
            yield slice(start, start + limit)
            start += limit
    yield slice(start, stop)


def _means(losses: Tensor, slots: Sequence[SlotRows]) -> Tensor:
    """What each slot's rows add to its step's mean losses, ``[len(slots), 2]``: exemplars, preservation."""
    means = []
    for each, own in zip(slots, losses.split([len(each) for each in slots]), strict=True):
        exemplars, preserved = own.tensor_split([each.rows.exemplars])
        counts = each.rows.counts
        means += [exemplars.sum() / counts[0], preserved.sum() / max(1, counts[1])]
    return torch.stack(means).view(-1, 2)
