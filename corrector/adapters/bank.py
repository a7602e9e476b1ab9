"""AdapterBank: many LoRA adapters in one forward, each batch row with its own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from corrector.adapters.adapter import SD3_TARGETS, Adapter, AdapterError
from corrector.adapters.layer import StackedLayer
from corrector.adapters.layout import Layout, PackedAdapter, Target, some
from corrector.adapters.plans import Current, RunPlan, StaticPlan

_PLANS_KEPT = 64


class AdapterBank:
    """Holds ``slots`` adapters beside one transformer and applies to every batch row the slot that it names.

    All weights lie in one tensor, :attr:`storage` ``[slots + 1, P]``, a slot to a row; every target Linear works on views
    of its columns, ``A [slots + 1, R, in]`` and ``B [slots + 1, out, R]``. Adapters of lower rank are zero-padded to
    ``R``, and the padding stays zero in training because its gradients are zero. Slot 0 is the base and stays zero.
    Updates are added by forward hooks, so the transformer keeps its modules, parameter names and dtype, and is the plain
    base again outside :meth:`rows` and after :meth:`remove`::

        with bank.rows([0, 1, 1, 2]):          # four rows: the base, slot 1 twice, slot 2
            prediction = transformer(...)

    Rows of the base equal those of the plain base to the bit. In one forward every row pays for the highest of its rows'
    ranks.

    A *static* bank is for blocks that are compiled (``block.compile()``): slots reach the layers as tensors, so that no
    assignment of slots to rows, and no adapter loaded, changes a graph. Rows of the base then add products of zeros, and
    every row pays for rank ``R``. One plan has room for 64 rows; more are another shape, once for every further 64.

    A *row-wise* bank multiplies every row alone, at rank ``R``: what a row's update is then depends, to the bit, on nothing
    that shares its batch (a static bank does so, too). Otherwise rows of one slot go through one product.

    With gradient checkpointing call ``backward()`` inside the ``with`` too: the recomputed forward needs the rows.
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
        static: bool = False,
        row_wise: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        """``targets`` are suffixes of module paths; ``rank`` is the highest that a slot can hold.

        Weights are cast to the dtype of the activations where they are used, so that a bank in the transformer's own
        dtype gives the same result as one in float32; training needs float32. ``base_revision`` is what :meth:`load`
        compares an adapter's with, where both are known. ``device`` None is that of the first target; a transformer
        whose weights are offloaded needs the one on which it computes.

        Raises :class:`AdapterError` if ``slots`` or ``rank`` is below 1, a target matches no Linear, the transformer has
        a bank already, or it is offloaded and no ``device`` is given.
        """
        if slots < 1 or rank < 1:
            raise AdapterError(f"a bank needs at least one slot and rank 1; got slots={slots}, rank={rank}")
        linears = _target_linears(transformer, targets)
        self.slots = slots
        self.rank = rank
        self.base_revision = base_revision
        self.static = static
        self.row_wise = row_wise
        self.targets: tuple[str, ...] = tuple(linears)
        self.layout = _layout(linears, rank)
        self.storage: Tensor = torch.zeros(
            slots + 1, self.layout.size, dtype=dtype, device=_device(linears, device)
        )
        """``[slots + 1, P]``, contiguous; a row's order is that of :attr:`layout`."""
        self._held: list[_Held | None] = [None] * (slots + 1)
        self._scales = torch.ones(slots + 1, device=self.storage.device)
        self._plans: dict[tuple[int, ...], RunPlan | StaticPlan] = {}
        self._current = Current()
        self._batch_check = transformer.register_forward_pre_hook(self._check_batch, with_kwargs=True)
        self._layers: list[StackedLayer] = []
        try:
            for target, down, up in self.layout.views(self.storage):
                weights = (
                    nn.Parameter(down, requires_grad=trainable),
                    nn.Parameter(up, requires_grad=trainable),
                )
                layer = StackedLayer(linears[target.path], target.path, *weights, self._current)
                self._layers.append(layer)
        except AdapterError:
            self.remove()
            raise

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

    def pack(self, adapter: Adapter, *, pin: bool = False) -> PackedAdapter:
        """``adapter`` as one host vector in this bank's order and dtype, for any bank of the same layout.

        ``pin`` keeps it in page-locked memory, from which a CUDA device loads it without the host waiting. Raises
        :class:`AdapterError` if it does not fit.
        """
        self._check_fits(adapter)
        values = torch.zeros(self.layout.size, dtype=self.storage.dtype, pin_memory=pin)
        self.layout.write(values, adapter)
        return PackedAdapter(self.layout, values, adapter.rank, adapter.alpha, adapter.base_revision)

    @torch.no_grad()
    def load(self, slot: int, adapter: Adapter | PackedAdapter) -> None:
        """Puts ``adapter`` into ``slot``, replacing what was there; a packed one is a single copy.

        Everything is checked first; on :class:`AdapterError` the slot is as it was.
        """
        self._check_writable(slot)
        if isinstance(adapter, Adapter) and self.storage.device.type == "cpu":
            self._check_fits(adapter)
            self.layout.write(self.storage[slot], adapter)
        else:
            packed = adapter if isinstance(adapter, PackedAdapter) else self.pack(adapter)
            self._check_packed(packed)
            self.storage[slot].copy_(packed.values, non_blocking=True)
        self._hold(slot, _Held(adapter.rank, adapter.alpha))

    @torch.no_grad()
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
        values = torch.zeros(self.layout.size)
        for _, down, _ in self.layout.views(values):
            nn.init.kaiming_uniform_(down[:rank], a=sqrt(5), generator=generator)
        self.storage[slot].copy_(values)
        self._hold(slot, _Held(rank, alpha))

    @torch.no_grad()
    def unload(self, slot: int) -> None:
        """Empties ``slot``; emptying an empty slot does nothing."""
        self._check_writable(slot)
        self.storage[slot].zero_()
        self._hold(slot, None)

    def export(self, slot: int, **metadata: str) -> Adapter:
        """A copy of what ``slot`` holds, on the CPU, without padding; raises :class:`AdapterError` if it is
        empty or its weights are not finite."""
        held = self._occupied(slot)
        weights = self.layout.read(self.storage[slot].cpu(), held.rank)
        return Adapter(held.rank, held.alpha, weights, base_revision=self.base_revision, metadata=metadata)

    def occupied(self) -> list[int]:
        """The slots that hold an adapter, ascending."""
        return [slot for slot, held in enumerate(self._held) if held is not None]

    def rank_of(self, slot: int) -> int:
        """The rank of the adapter in ``slot``; raises :class:`AdapterError` if it is empty."""
        return self._occupied(slot).rank

    def used(self, rank: int) -> Tensor:
        """Mask ``[P]``, on the bank's device, of the columns that an adapter of ``rank`` has; the rest is padding."""
        return self.layout.used(rank).to(self.storage.device)

    def parameters(self) -> list[nn.Parameter]:
        """All stacked weights, ``A [slots + 1, R, in]`` and ``B [slots + 1, out, R]`` in turn, in target
        order: views of :attr:`storage`."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """``("<module path>.lora_A", A)`` and ``("<module path>.lora_B", B)`` for every target, in order."""
        for layer in self._layers:
            yield f"{layer.path}.lora_A", layer.down
            yield f"{layer.path}.lora_B", layer.up

    def remove(self) -> None:
        """Detaches the bank; the transformer is the plain base from then on, and can be given another bank."""
        self._batch_check.remove()
        for layer in self._layers:
            layer.detach()

    def _check_batch(self, _transformer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        plan, batch = self._current.plan, args[0] if args else kwargs.get("hidden_states")
        if plan is not None and isinstance(batch, Tensor) and batch.shape[0] != plan.batch:
            raise AdapterError(
                f"the batch has {batch.shape[0]} rows, but rows() named slots for {plan.batch}; "
                "name one slot per row of the batch that the transformer sees"
            )

    def _plan(self, index: tuple[int, ...]) -> RunPlan | StaticPlan:
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
            plan = self._plans[index] = self._make_plan(index)
        return plan

    def _make_plan(self, index: tuple[int, ...]) -> RunPlan | StaticPlan:
        if self.static:
            return StaticPlan.of(index, self._scales)
        ranks = [0 if held is None else self.rank if self.row_wise else held.rank for held in self._held]
        scales = [1.0 if held is None else held.scale for held in self._held]
        return RunPlan.of(index, ranks, scales, self.storage.device, row_wise=self.row_wise)

    def _hold(self, slot: int, held: "_Held | None") -> None:
        self._held[slot] = held
        self._scales[slot].fill_(1.0 if held is None else held.scale)
        self._plans = {index: plan for index, plan in self._plans.items() if slot not in index}

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
        self._check_revision(adapter.base_revision)
        self.layout.check(adapter)

    def _check_packed(self, packed: PackedAdapter) -> None:
        self._check_revision(packed.base_revision)
        if packed.layout != self.layout or packed.values.dtype != self.storage.dtype:
            raise AdapterError(
                "the adapter was packed for a bank of another rank, dtype or transformer; pack it with this bank"
            )

    def _check_revision(self, revision: str | None) -> None:
        if None not in (self.base_revision, revision) and revision != self.base_revision:
            raise AdapterError(
                f"adapter was trained on base revision {revision}; this base is revision {self.base_revision}"
            )


@dataclass(frozen=True)
class _Held:
    """What a slot holds."""

    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


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
        raise AdapterError(f"no module of this transformer ends in {some(sorted(unused))}")
    return found


def layout_of(transformer: nn.Module, rank: int, targets: Sequence[str] = SD3_TARGETS) -> Layout:
    """The layout of a bank for ``transformer``, whose weights may be on the device ``meta``.

    Raises :class:`AdapterError` if a target matches no Linear.
    """
    return _layout(_target_linears(transformer, targets), rank)


def _layout(linears: Mapping[str, nn.Linear], rank: int) -> Layout:
    return Layout(
        rank,
        tuple(Target(path, linear.in_features, linear.out_features) for path, linear in linears.items()),
    )


def _device(linears: dict[str, nn.Linear], device: torch.device | str | None) -> torch.device:
    """Where the bank's weights go."""
    chosen = next(iter(linears.values())).weight.device if device is None else torch.device(device)
    if chosen.type == "meta":
        raise AdapterError(
            "the transformer's weights are on the meta device, as offloading leaves them; "
            "tell the bank with device= where the transformer computes"
        )
    return chosen
