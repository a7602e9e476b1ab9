"""AdapterBank: many LoRA adapters in one forward, each batch row with its own."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from math import gcd, isfinite, sqrt

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from corrector.adapters.adapter import SD3_TARGETS, Adapter, AdapterError

_PLANS_KEPT = 64


class AdapterBank:
    """Holds ``slots`` adapters beside one transformer and applies to every batch row the slot that it names.

    Each target Linear gets stacked weights ``A [slots + 1, R, in]`` and ``B [slots + 1, out, R]``; adapters
    of lower rank are zero-padded to ``R``, and the padding stays zero in training because its gradients are
    zero. Slot 0 is the base and stays zero. Updates are added by forward hooks, so the transformer keeps
    its modules, parameter names and dtype, and is the plain base again outside :meth:`rows` and after
    :meth:`remove`::

        with bank.rows([0, 1, 1, 2]):          # four rows: the base, slot 1 twice, slot 2
            prediction = transformer(...)

    The bank stays on the device on which it found the transformer. With gradient checkpointing call
    ``backward()`` inside the ``with`` too: the recomputed forward needs the rows.
    """

    def __init__(
        self,
        transformer: nn.Module,
        *,
        slots: int,
        rank: int,
        targets: Sequence[str] = SD3_TARGETS,
        dtype: torch.dtype = torch.float32,
        trainable: bool = False,
        base_revision: str | None = None,
    ) -> None:
        """``targets`` are suffixes of module paths; ``rank`` is the highest that a slot can hold.

        ``base_revision`` is what :meth:`load` compares an adapter's with, where both are known. Raises
        :class:`AdapterError` if ``slots`` or ``rank`` is below 1 or a target matches no Linear.
        """
        if slots < 1 or rank < 1:
            raise AdapterError(f"a bank needs at least one slot and rank 1; got slots={slots}, rank={rank}")
        self.slots = slots
        self.rank = rank
        self.base_revision = base_revision
        linears = _target_linears(transformer, targets)
        self.targets: tuple[str, ...] = tuple(linears)
        self._layers = {
            path: _Layer(linear, slots, rank, dtype, trainable, path) for path, linear in linears.items()
        }
        self._held: list[_Held | None] = [None] * (slots + 1)
        self._plans: dict[tuple[int, ...], _Plan] = {}
        self._current = _Current()
        self._handles = [self._attach(linears[path], layer) for path, layer in self._layers.items()]

    @contextmanager
    def rows(self, index: Sequence[int]) -> Iterator[None]:
        """Within the ``with``, row ``i`` of every batch goes through slot ``index[i]``; contexts may nest.

        Raises :class:`AdapterError` for a slot that does not exist or holds nothing, and, from inside the
        transformer's forward, for a batch of another size than ``index``.
        """
        plan = self._plan(tuple(index))
        outer, self._current.plan = self._current.plan, plan
        try:
            yield
        finally:
            self._current.plan = outer

    def load(self, slot: int, adapter: Adapter) -> None:
        """Puts ``adapter`` into ``slot``, replacing what was there.

        Everything is checked first; on :class:`AdapterError` the slot is as it was.
        """
        self._check_writable(slot)
        self._check_fits(adapter)
        with torch.no_grad():
            for path, layer in self._layers.items():
                down, up = adapter.weights[path]
                layer.write(slot, down, up)
        self._hold(slot, _Held(adapter.rank, adapter.alpha))

    def initialise(self, slot: int, *, rank: int, alpha: float | None = None, seed: int = 0) -> None:
        """A fresh adapter as PEFT makes it: ``A`` Kaiming-uniform with a = sqrt(5), ``B`` zero; alpha None
        = rank.

        The numbers depend only on ``seed``, ``rank`` and the targets, not on the slot, bank or device.
        """
        self._check_writable(slot)
        alpha = float(rank) if alpha is None else float(alpha)
        if not 1 <= rank <= self.rank:
            raise AdapterError(f"slot {slot}: rank {rank} is outside 1..{self.rank}, the bank's rank")
        if not (isfinite(alpha) and alpha > 0):
            raise AdapterError(f"slot {slot}: alpha is {alpha}; it must be a positive number")
        generator = torch.Generator("cpu").manual_seed(seed)
        with torch.no_grad():
            for layer in self._layers.values():
                down = torch.empty(rank, layer.down.shape[2])
                nn.init.kaiming_uniform_(down, a=sqrt(5), generator=generator)
                layer.write(slot, down, torch.zeros(layer.up.shape[1], rank))
        self._hold(slot, _Held(rank, alpha))

    def unload(self, slot: int) -> None:
        """Empties ``slot``; emptying an empty slot does nothing."""
        self._check_writable(slot)
        with torch.no_grad():
            for layer in self._layers.values():
                layer.down[slot].zero_()
                layer.up[slot].zero_()
        self._hold(slot, None)

    def export(self, slot: int, **metadata: str) -> Adapter:
        """A copy of what ``slot`` holds, on the CPU, without padding; raises :class:`AdapterError` if it is
        empty or its weights are not finite."""
        held = self._occupied(slot)
        weights = {
            path: (
                layer.down[slot, : held.rank].detach().to("cpu", copy=True).contiguous(),
                layer.up[slot, :, : held.rank].detach().to("cpu", copy=True).contiguous(),
            )
            for path, layer in self._layers.items()
        }
        return Adapter(held.rank, held.alpha, weights, base_revision=self.base_revision, metadata=metadata)

    def occupied(self) -> list[int]:
        """The slots that hold an adapter, ascending."""
        return [slot for slot, held in enumerate(self._held) if held is not None]

    def rank_of(self, slot: int) -> int:
        """The rank of the adapter in ``slot``; raises :class:`AdapterError` if it is empty."""
        return self._occupied(slot).rank

    def parameters(self) -> list[nn.Parameter]:
        """All stacked weights, ``A [slots + 1, R, in]`` and ``B [slots + 1, out, R]`` in turn, in target
        order."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """``("<module path>.lora_A", A)`` and ``("<module path>.lora_B", B)`` for every target, in order."""
        for path, layer in self._layers.items():
            yield f"{path}.lora_A", layer.down
            yield f"{path}.lora_B", layer.up

    def remove(self) -> None:
        """Detaches the bank; the transformer is the plain base from then on."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _attach(self, linear: nn.Linear, layer: "_Layer") -> RemovableHandle:
        current = self._current

        def add_update(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output if current.plan is None else layer.add(current.plan, args[0], output)

        return linear.register_forward_hook(add_update)

    def _plan(self, index: tuple[int, ...]) -> "_Plan":
        plan = self._plans.get(index)
        if plan is None:
            for slot in set(index):
                if not 0 <= slot <= self.slots:
                    raise AdapterError(
                        f"row names slot {slot}; this bank has slots 0 (the base) to {self.slots}"
                    )
                if slot:
                    self._occupied(slot)
            if len(self._plans) >= _PLANS_KEPT:
                self._plans.pop(next(iter(self._plans)))
            device = next(iter(self._layers.values())).down.device
            plan = self._plans[index] = _make_plan(index, self._held, device)
        return plan

    def _hold(self, slot: int, held: "_Held | None") -> None:
        self._held[slot] = held
        self._plans.clear()

    def _occupied(self, slot: int) -> "_Held":
        self._check_slot(slot)
        held = self._held[slot]
        if held is None:
            raise AdapterError(
                f"slot {slot} is empty; load or initialise it first (occupied: {self.occupied()})"
            )
        return held

    def _check_slot(self, slot: int) -> None:
        if slot == 0:
            raise AdapterError("slot 0 is the base and holds no adapter; use 1 or above")
        if not 1 <= slot <= self.slots:
            raise AdapterError(f"slot {slot} does not exist; this bank has slots 1 to {self.slots}")

    def _check_writable(self, slot: int) -> None:
        self._check_slot(slot)
        if self._current.plan is not None:
            raise AdapterError(f"slot {slot} cannot change inside rows(); leave the with statement first")

    def _check_fits(self, adapter: Adapter) -> None:
        known = (self.base_revision, adapter.base_revision)
        if None not in known and known[0] != known[1]:
            raise AdapterError(
                f"adapter was trained on base revision {known[1]}; this base is revision {known[0]}"
            )
        if adapter.rank > self.rank:
            raise AdapterError(f"adapter has rank {adapter.rank}; this bank holds at most rank {self.rank}")
        missing = [path for path in self.targets if path not in adapter.weights]
        if missing:
            raise AdapterError(
                f"adapter lacks weights for {_some(missing)}; it must cover every target of the bank"
            )
        extra = [path for path in adapter.weights if path not in self._layers]
        if extra:
            raise AdapterError(f"adapter has weights for {_some(extra)}, which the bank does not target")
        for path, layer in self._layers.items():
            down, up = adapter.weights[path]
            for key, found, expected in (
                (f"{path}.lora_A.weight", list(down.shape), [adapter.rank, layer.down.shape[2]]),
                (f"{path}.lora_B.weight", list(up.shape), [layer.up.shape[1], adapter.rank]),
            ):
                if found != expected:
                    raise AdapterError(f"{key} has shape {found}; this base needs {expected}")


@dataclass(frozen=True)
class _Held:
    """What a slot holds."""

    rank: int
    alpha: float


@dataclass
class _Current:
    """The rows in force, shared by a bank's hooks."""

    plan: "_Plan | None" = None


@dataclass(frozen=True)
class _Plan:
    """How a batch maps onto slots: rows ``[start, stop)`` form ``groups`` equal runs, one slot each.

    Rows outside are the base's and are never touched. Consecutive slots are read as a view (``first``); any
    other order is gathered once per group (``gather``), which is once per row when runs have no common
    length.
    """

    batch: int
    start: int
    stop: int
    groups: int
    rank: int
    """The highest of the slots' ranks; the padding above it is not multiplied."""
    first: int
    gather: Tensor | None
    scale: Tensor | None
    """``[groups, 1, 1]`` float32, or None where every scale is 1."""


def _make_plan(index: tuple[int, ...], held: Sequence["_Held | None"], device: torch.device) -> _Plan:
    adapted = [row for row, slot in enumerate(index) if slot]
    if not adapted:
        return _Plan(len(index), 0, 0, 0, 0, 0, None, None)
    start, stop = adapted[0], adapted[-1] + 1
    runs = [(slot, len(list(run))) for slot, run in groupby(index[start:stop])]
    size = gcd(*(length for _, length in runs))
    slots = list(index[start:stop:size])
    consecutive = slots == list(range(slots[0], slots[0] + len(slots)))
    adapters = [held[slot] for slot in slots]
    scales = [1.0 if adapter is None else adapter.alpha / adapter.rank for adapter in adapters]
    return _Plan(
        batch=len(index),
        start=start,
        stop=stop,
        groups=len(slots),
        rank=max(adapter.rank for adapter in adapters if adapter is not None),
        first=slots[0],
        gather=None if consecutive else torch.tensor(slots, device=device),
        scale=None if set(scales) == {1.0} else torch.tensor(scales, device=device).view(-1, 1, 1),
    )


class _Layer:
    """The stacked weights of one target Linear."""

    def __init__(
        self, linear: nn.Linear, slots: int, rank: int, dtype: torch.dtype, trainable: bool, path: str
    ) -> None:
        device = linear.weight.device
        self.path = path
        self.down = nn.Parameter(torch.zeros(slots + 1, rank, linear.in_features, dtype=dtype, device=device))
        self.up = nn.Parameter(torch.zeros(slots + 1, linear.out_features, rank, dtype=dtype, device=device))
        self.down.requires_grad_(trainable)
        self.up.requires_grad_(trainable)

    def write(self, slot: int, down: Tensor, up: Tensor) -> None:
        """Copies ``down [r, in]`` and ``up [out, r]`` into ``slot`` and zeroes the padding."""
        rank = down.shape[0]
        self.down[slot, :rank].copy_(down)
        self.down[slot, rank:].zero_()
        self.up[slot, :, :rank].copy_(up)
        self.up[slot, :, rank:].zero_()

    def add(self, plan: _Plan, x: Tensor, output: Tensor) -> Tensor:
        """``output [B, ..., out]`` plus every row's own ``scale * B A x`` for ``x [B, ..., in]``."""
        if x.shape[0] != plan.batch:
            raise AdapterError(
                f"{self.path}: the batch has {x.shape[0]} rows, but rows() named slots for {plan.batch}; "
                "name one slot per row of the batch that the transformer sees"
            )
        if not plan.groups:
            return output
        x, base = x[plan.start : plan.stop], output[plan.start : plan.stop]
        down = self._chosen(plan, self.down[:, : plan.rank], x.dtype)
        up = self._chosen(plan, self.up[:, :, : plan.rank], x.dtype)
        inner = torch.bmm(x.reshape(plan.groups, -1, x.shape[-1]), down.transpose(1, 2))
        if plan.scale is not None:
            inner = inner * plan.scale.to(inner.dtype)
        if not torch.is_grad_enabled():  # the output is the Linear's own and nothing has kept it
            base.view(plan.groups, -1, base.shape[-1]).baddbmm_(inner, up.transpose(1, 2))
            return output
        updated = torch.baddbmm(base.reshape(plan.groups, -1, base.shape[-1]), inner, up.transpose(1, 2))
        updated = updated.view(base.shape)
        if plan.stop - plan.start == plan.batch:
            return updated
        return torch.cat([output[: plan.start], updated, output[plan.stop :]])

    @staticmethod
    def _chosen(plan: _Plan, weight: Tensor, dtype: torch.dtype) -> Tensor:
        if plan.gather is None:
            return weight[plan.first : plan.first + plan.groups].to(dtype)
        return weight.index_select(0, plan.gather).to(dtype)


def _target_linears(transformer: nn.Module, targets: Sequence[str]) -> dict[str, nn.Linear]:
    """Module path -> Linear for every path that is, or ends in, one of ``targets``, in the transformer's
    order."""
    found: dict[str, nn.Linear] = {}
    unused = set(targets)
    for path, module in transformer.named_modules():
        matched = {target for target in targets if path == target or path.endswith("." + target)}
        if not matched:
            continue
        if not isinstance(module, nn.Linear):
            raise AdapterError(f"target {path} is a {type(module).__name__}; a bank needs plain Linears")
        unused -= matched
        found[path] = module
    if unused:
        raise AdapterError(f"no module of this transformer ends in {_some(sorted(unused))}")
    return found


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
