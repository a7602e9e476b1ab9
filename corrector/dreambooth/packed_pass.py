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
from corrector.dreambooth.draws import Rows
from corrector.dreambooth.objective import row_losses

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel


@dataclass(frozen=True)
class Part:
    """One slot's rows of a step, or some of them."""

    slot: int
    rows: Rows
    texts: TextEmbeddings
    """The fine-tune's text embeddings on the transformer's device, in its dtype."""

    def row_tokens(self, patch: int) -> int:
        """Tokens that one row takes through the transformer: patches of ``patch`` by ``patch`` latents, and text."""
        height, width = self.rows.noisy.shape[2:]
        return (height // patch) * (width // patch) + self.texts.prompt.shape[1]

    def row_costs(self, patch: int) -> list[int]:
        """What every row costs beside the others: a guarded one goes through the transformer once more, as the base."""
        tokens = self.row_tokens(patch)
        guarded = len(self.rows) - self.rows.exemplars if self.rows.guarded else 0
        # Forward and backward of a frozen base are two forwards' arithmetic.
        return [2 * tokens] * (len(self.rows) - guarded) + [3 * tokens] * guarded

    def span(self, start: int, stop: int) -> Part:
        """Rows ``[start, stop)`` of these."""
        return replace(self, rows=self.rows.span(start, stop))


def alike(parts: Sequence[Part]) -> list[list[Part]]:
    """Groups of the parts that can share a forward: the same latent shape and number of text tokens."""
    groups: defaultdict[tuple[int, ...], list[Part]] = defaultdict(list)
    for part in parts:
        groups[*part.rows.noisy.shape[1:], part.texts.prompt.shape[1]].append(part)
    return list(groups.values())


def packed_pass(
    transformer: SD3Transformer2DModel,
    bank: AdapterBank,
    parts: Sequence[Part],
    rows_at_once: int | None = None,
) -> Tensor:
    """Adds every part's gradient to its slot's and returns the losses ``[len(parts), 2]``: exemplars, preservation.

    The parts must be :func:`alike`. The sum of their losses is what is differentiated; rows share nothing, so a slot's
    gradient is what it would be alone. A loss is the part's contribution to the mean over its step's rows: the mean
    itself where the part is whole, and 0 where it has no such row. At most ``rows_at_once`` rows are held for a
    backward at once; more are taken in turns. Nothing here waits for the device.
    """
    batch = _Batch.of(parts)
    if len(batch.guarded):
        for some in batch.guarded.split(rows_at_once or len(batch.guarded)):
            with torch.no_grad():
                batch.target[some] = batch.predict(transformer, some).float()
    losses = []
    for turn in _turns(parts, rows_at_once):
        with bank.rows(batch.slots[turn]):
            loss = row_losses(batch.predict(transformer, turn), batch.target[turn], batch.weights[turn])
            (loss * batch.shares[turn]).sum().backward()
        losses.append(loss.detach())
    return _means(torch.cat(losses), parts)


@dataclass(frozen=True)
class _Batch:
    """The rows of all parts in turn, on the transformer's device."""

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
    def of(parts: Sequence[Part]) -> _Batch:
        device, dtype = parts[0].texts.prompt.device, parts[0].texts.prompt.dtype
        guarded = [
            torch.arange(len(part.rows)) >= (part.rows.exemplars if part.rows.guarded else len(part.rows))
            for part in parts
        ]

        def joined(tensors: Sequence[Tensor]) -> Tensor:
            return _to_device(tensors, device)

        texts = joined([part.rows.texts for part in parts]).split([len(part.rows) for part in parts])
        return _Batch(
            slots=[part.slot for part in parts for _ in range(len(part.rows))],
            guarded=joined([torch.cat(guarded).nonzero().flatten()]),
            noisy=joined([part.rows.noisy for part in parts]).to(dtype),
            target=joined([part.rows.target for part in parts]),
            timesteps=joined([part.rows.timesteps for part in parts]),
            weights=joined([part.rows.weights for part in parts]),
            shares=joined([part.rows.shares for part in parts]),
            texts=TextEmbeddings.cat([part.texts[index] for part, index in zip(parts, texts, strict=True)]),
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
    """The tensors one after another on ``device``, through page-locked memory where the host would wait otherwise."""
    shape = (sum(len(tensor) for tensor in tensors), *tensors[0].shape[1:])
    host = torch.empty(shape, dtype=tensors[0].dtype, pin_memory=device.type == "cuda")
    return torch.cat(list(tensors), out=host).to(device, non_blocking=True)


def _turns(parts: Sequence[Part], limit: int | None) -> Iterator[slice]:
    """Slices of at most ``limit`` rows that cut a part only if it is longer than that."""
    start = stop = 0
    for part in parts:
        length = len(part.rows)
        if limit is not None and stop > start and stop + length - start > limit:
            yield slice(start, stop)
            start = stop
        stop += length
        while limit is not None and stop - start > limit:
            yield slice(start, start + limit)
            start += limit
    yield slice(start, stop)


def _means(losses: Tensor, parts: Sequence[Part]) -> Tensor:
    """What every part adds to its step's mean losses, ``[len(parts), 2]``: exemplar rows, preservation rows."""
    means = []
    for part, own in zip(parts, losses.split([len(part.rows) for part in parts]), strict=True):
        exemplars, kept = own[: part.rows.exemplars], own[part.rows.exemplars :]
        counts = part.rows.counts
        means += [exemplars.sum() / counts[0], kept.sum() / max(1, counts[1])]
    return torch.stack(means).view(-1, 2)
