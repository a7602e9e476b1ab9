"""One forward and backward for the rows of many fine-tunes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers import SD3Transformer2DModel
from torch import Tensor

from corrector.adapters import AdapterBank
from corrector.base import TextEmbeddings
from corrector.dreambooth.draws import Rows
from corrector.dreambooth.objective import row_losses


@dataclass(frozen=True)
class Part:
    """One slot's rows of a pass, all passes' rows having the same latent shape and number of tokens."""

    slot: int
    rows: Rows
    texts: TextEmbeddings
    """The fine-tune's text embeddings on the transformer's device, in its dtype."""


def packed_pass(
    transformer: SD3Transformer2DModel,
    bank: AdapterBank,
    parts: Sequence[Part],
    rows_per_forward: int | None = None,
) -> Tensor:
    """Adds every part's gradient to its slot's and returns the mean losses ``[len(parts), 2]``: exemplars, preservation.

    The sum of the parts' losses is what is differentiated; rows share nothing, so a slot's gradient is what it would
    be alone. A part without preservation has 0 there. At most ``rows_per_forward`` rows are held for a backward at
    once; more are taken in turns.
    """
    batch = _Batch.of(transformer, parts)
    if len(batch.guarded):
        for some in batch.guarded.split(rows_per_forward or len(batch.guarded)):
            with torch.no_grad():
                batch.target[some] = batch.predict(transformer, some).float()
    losses = []
    for turn in _turns(parts, rows_per_forward):
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
    def of(transformer: SD3Transformer2DModel, parts: Sequence[Part]) -> "_Batch":
        device, dtype = transformer.device, transformer.dtype
        slots = [part.slot for part in parts for _ in part.rows.texts]
        guarded = [
            torch.arange(len(part.rows.texts))
            >= (part.rows.exemplars if part.rows.guarded else len(part.rows.texts))
            for part in parts
        ]

        def joined(tensors: Sequence[Tensor]) -> Tensor:
            tensor = torch.cat(list(tensors))
            if device.type == "cuda":
                tensor = tensor.pin_memory()
            return tensor.to(device, non_blocking=True)

        texts = joined([part.rows.texts for part in parts]).split([len(part.rows.texts) for part in parts])
        return _Batch(
            slots=slots,
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


def _turns(parts: Sequence[Part], limit: int | None) -> Iterator[slice]:
    """Slices of at most ``limit`` rows that cut a part only if it is longer than that."""
    start = stop = 0
    for part in parts:
        length = len(part.rows.texts)
        if limit is not None and stop > start and stop + length - start > limit:
            yield slice(start, stop)
            start = stop
        stop += length
        while limit is not None and stop - start > limit:
            yield slice(start, start + limit)
            start += limit
    yield slice(start, stop)


def _means(losses: Tensor, parts: Sequence[Part]) -> Tensor:
    """Mean loss of every part's exemplar rows and preservation rows, ``[len(parts), 2]``."""
    means = []
    for part, own in zip(parts, losses.split([len(part.rows.texts) for part in parts]), strict=True):
        exemplars, kept = own[: part.rows.exemplars], own[part.rows.exemplars :]
        means += [exemplars.mean(), kept.mean() if len(kept) else exemplars.new_zeros(())]
    return torch.stack(means).view(-1, 2)
