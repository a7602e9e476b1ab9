"""The order of an adapter's weights in one vector."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from corrector.adapters.adapter import Adapter, AdapterError


@dataclass(frozen=True)
class Target:
    """A Linear that every adapter of a bank changes."""

    path: str
    """Module path in the transformer."""
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Layout:
    """The order of weights in a vector ``[P]``: for every target ``A [R, in]``, then ``B [out, R]``.

    An adapter of lower rank than ``R`` leaves the last rows of ``A`` and the last columns of ``B`` zero.
    """

    rank: int
    """``R``, the highest that fits."""
    targets: tuple[Target, ...]

    @cached_property
    def size(self) -> int:
        """``P``."""
        return sum(self.rank * (target.inputs + target.outputs) for target in self.targets)

    def views(self, vectors: Tensor) -> Iterator[tuple[Target, Tensor, Tensor]]:
        """Every target with its ``A [..., R, in]`` and ``B [..., out, R]`` as views of ``vectors [..., P]``."""
        offset = 0
        for target in self.targets:
            middle = offset + self.rank * target.inputs
            end = middle + target.outputs * self.rank
            down = vectors[..., offset:middle].unflatten(-1, (self.rank, target.inputs))
            up = vectors[..., middle:end].unflatten(-1, (target.outputs, self.rank))
            yield target, down, up
            offset = end

    def used(self, rank: int) -> Tensor:
        """Mask ``[P]`` of the weights that an adapter of ``rank`` has; the others are padding."""
        mask = torch.zeros(self.size, dtype=torch.bool)
        for _, down, up in self.views(mask):
            down[:rank] = True
            up[:, :rank] = True
        return mask

    def write(self, vector: Tensor, adapter: Adapter) -> None:
        """Writes ``adapter``, which has passed :meth:`check`, and its padding into ``vector [P]``."""
        rank = adapter.rank
        for target, down, up in self.views(vector):
            lower, upper = adapter.weights[target.path]
            down[:rank].copy_(lower)
            up[:, :rank].copy_(upper)
            if rank < self.rank:
                down[rank:].zero_()
                up[:, rank:].zero_()

    def read(self, vector: Tensor, rank: int) -> dict[str, tuple[Tensor, Tensor]]:
        """Copies of the weights in ``vector [P]`` without padding: the inverse of :meth:`write`."""
        return {
            target.path: (_copy(down[:rank]), _copy(up[:, :rank])) for target, down, up in self.views(vector)
        }

    def check(self, adapter: Adapter) -> None:
        """Raises :class:`AdapterError`, naming the weight, unless ``adapter`` covers the targets and nothing else."""
        if adapter.rank > self.rank:
            raise AdapterError(f"adapter has rank {adapter.rank}; this bank holds at most rank {self.rank}")
        missing = [target.path for target in self.targets if target.path not in adapter.weights]
        if missing:
            raise AdapterError(
                f"adapter lacks weights for {some(missing)}; it must cover every target of the bank"
            )
        known = {target.path for target in self.targets}
        extra = [path for path in adapter.weights if path not in known]
        if extra:
            raise AdapterError(f"adapter has weights for {some(extra)}, which the bank does not target")
        for target in self.targets:
            down, up = adapter.weights[target.path]
            for key, found, expected in (
                ("lora_A", list(down.shape), [adapter.rank, target.inputs]),
                ("lora_B", list(up.shape), [target.outputs, adapter.rank]),
            ):
                if found != expected:
                    raise AdapterError(
                        f"{target.path}.{key}.weight has shape {found}; this base needs {expected}: "
                        "the adapter was made for a base of another size"
                    )


@dataclass(frozen=True)
class PackedAdapter:
    """An adapter in a bank's order, which loads with one copy; ``AdapterBank.pack`` makes it."""

    layout: Layout
    values: Tensor
    """``[P]`` on the host, in the bank's dtype."""
    rank: int
    alpha: float
    base_revision: str | None


def some(names: list[str]) -> str:
    """The first three of ``names``, and how many there are beyond them."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _copy(view: Tensor) -> Tensor:
    return view.clone(memory_format=torch.contiguous_format)
