"""AdapterBank: many LoRA adapters in one forward, each batch row with its own."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from corrector.adapters.adapter import SD3_TARGETS, Adapter, AdapterError
from corrector.adapters.layout import Layout, PackedAdapter, Target, some
from corrector.adapters.plans import Current, RunPlan, StaticPlan
from corrector.adapters.stacked_layer import StackedLayer

_MAX_PLANS = 64


class AdapterBank:
    """``slots`` LoRA adapters beside one transformer; each batch row uses the slot that :meth:`rows` names for it.

    All weights are one tensor, :attr:`storage` ``[slots + 1, P]``, with a row for each slot; every target Linear works on
    views of it, ``A [slots + 1, R, in]`` and ``B [slots + 1, out, R]``. Adapters of lower rank are zero-padded to ``R``;
    the padding stays zero in training because its gradients are zero. Slot 0 is the base and stays zero. Forward hooks add
    the updates, so the transformer keeps its modules, parameter names and dtype, and is the plain base outside
    :meth:`rows` and after :meth:`remove`::

        with bank.rows([0, 1, 1, 2]):          # four rows: the base, slot 1 twice, slot 2
            prediction = transformer(...)

    Rows of the base equal those of the plain base to the bit. All rows of a forward cost the highest rank among them.

    A *static* bank is for compiled blocks (``block.compile()``): layers receive slots as tensors, so neither the slots of
    rows nor the loaded adapters change a graph. Rows of the base then add products of zeros, and every row costs rank
    ``R``. The tensor's length is a multiple of 64 rows.

    A *row-wise* bank multiplies every row alone, at rank ``R``, so a row's update depends, to the bit, on no other row.
    A static bank does so too. Otherwise the rows of one slot share one product.

    With gradient checkpointing ``backward()`` belongs inside the ``with``: the recomputed forward needs the rows.

    PEFT's own mixed batch (``adapter_names``) refuses training mode, and took 118 to 221 ms for 1 to 8 adapters where this
    took 97 to 104 ms (toy transformer of 24 layers, 8 rows, CPU; ``python -m tests.benchmarks.bank`` compares both).
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
        """
        Args:
            rank: The highest rank that a slot can hold.
            targets: Suffixes of module paths.
            dtype: Of the weights, which are cast to the activations' dtype where they are used; float32 for training.
            base_revision: Compared with an adapter's by :meth:`load`, where both are known.
            device: None: the device of the first target. An offloaded transformer needs the one on which it computes.

        Raises:
            AdapterError: ``slots`` or ``rank`` is below 1, a target matches no Linear, the transformer has a bank already,
                or it is offloaded and no ``device`` is given.
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
        """``[slots + 1, P]``, contiguous; :attr:`layout` gives the order of a row."""
        self._info: list[_SlotInfo | None] = [None] * (slots + 1)
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
        """Inside the ``with``, row ``i`` of every batch uses slot ``index[i]``; contexts may nest.

        Raises :class:`AdapterError` for a slot that is empty or does not exist; the transformer's forward raises it for a
        batch of another size than ``index``.
        """
        plan = self._plan(tuple(index))
        outer, self._current.plan = self._current.plan, plan
        try:
            yield
        finally:
            self._current.plan = outer

    def pack(self, adapter: Adapter, *, pin: bool = False) -> PackedAdapter:
        """``adapter`` as one vector on the host, in the order and dtype of this bank and of any with the same layout.

        ``pin`` puts it into page-locked memory, so that the host does not wait for its copy to a CUDA device. Raises
        :class:`AdapterError` if it does not fit.
        """
        self._check_fits(adapter)
        values = torch.zeros(self.layout.size, dtype=self.storage.dtype, pin_memory=pin)
        self.layout.write(values, adapter)
        return PackedAdapter(self.layout, values, adapter.rank, adapter.alpha, adapter.base_revision)

    @torch.no_grad()
    def load(self, slot: int, adapter: Adapter | PackedAdapter) -> None:
        """Puts ``adapter`` into ``slot`` in place of another; a packed one is a single copy.

        After an :class:`AdapterError` the slot is unchanged.
        """
        self._check_writable(slot)
        if isinstance(adapter, Adapter) and self.storage.device.type == "cpu":
            self._check_fits(adapter)
            self.layout.write(self.storage[slot], adapter)
        else:
            packed = adapter if isinstance(adapter, PackedAdapter) else self.pack(adapter)
            self._check_packed(packed)
            self.storage[slot].copy_(packed.values, non_blocking=True)
        self._set_slot(slot, _SlotInfo(adapter.rank, adapter.alpha))

    @torch.no_grad()
    def initialise(self, slot: int, *, rank: int, alpha: float | None = None, seed: int = 0) -> None:
        """A new adapter with PEFT's initialisation: ``A`` Kaiming-uniform with a = sqrt(5), ``B`` zero; alpha None is rank.

        The weights depend on ``seed``, ``rank`` and the targets alone. PEFT's own initialisation draws from PyTorch's
        global generator, so that its weights would depend on what else the process draws.
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
        self._set_slot(slot, _SlotInfo(rank, alpha))

    @torch.no_grad()
    def unload(self, slot: int) -> None:
        """Empties ``slot``; emptying an empty slot does nothing."""
        self._check_writable(slot)
        self.storage[slot].zero_()
        self._set_slot(slot, None)

    def export(self, slot: int, **metadata: str) -> Adapter:
        """A copy of the adapter in ``slot`` on the CPU; raises :class:`AdapterError` if it is empty or not finite."""
        info = self._occupied(slot)
        weights = self.layout.read(self.storage[slot].cpu(), info.rank)
        return Adapter(info.rank, info.alpha, weights, base_revision=self.base_revision, metadata=metadata)

    def occupied(self) -> list[int]:
        """The slots that hold an adapter, ascending."""
        return [slot for slot, info in enumerate(self._info) if info is not None]

    def used(self, rank: int) -> Tensor:
        """Mask ``[P]``, on the bank's device, of the columns that an adapter of ``rank`` has; the rest is padding."""
        return self.layout.used(rank).to(self.storage.device)

    def parameters(self) -> list[nn.Parameter]:
        """``A [slots + 1, R, in]`` and ``B [slots + 1, out, R]`` of every target in turn, as views of :attr:`storage`."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The tensors of :meth:`parameters` as ``<module path>.lora_A`` and ``<module path>.lora_B``."""
        for layer in self._layers:
            yield f"{layer.path}.lora_A", layer.down
            yield f"{layer.path}.lora_B", layer.up

    def remove(self) -> None:
        """Detaches the bank from the transformer, which can then be given another bank."""
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
            if len(self._plans) >= _MAX_PLANS:
                self._plans.pop(next(iter(self._plans)))
            plan = self._plans[index] = self._make_plan(index)
        return plan

    def _make_plan(self, index: tuple[int, ...]) -> RunPlan | StaticPlan:
        if self.static:
            return StaticPlan.of(index, self._scales)
        ranks = [0 if info is None else self.rank if self.row_wise else info.rank for info in self._info]
        scales = [1.0 if info is None else info.scale for info in self._info]
        return RunPlan.of(index, ranks, scales, self.storage.device, row_wise=self.row_wise)

    def _set_slot(self, slot: int, info: "_SlotInfo | None") -> None:
        self._info[slot] = info
        self._scales[slot].fill_(1.0 if info is None else info.scale)
        self._plans = {index: plan for index, plan in self._plans.items() if slot not in index}

    def _occupied(self, slot: int) -> "_SlotInfo":
        self._check_slot(slot)
        info = self._info[slot]
        if info is None:
            raise AdapterError(
                f"slot {slot} is empty; load or initialise it first (occupied: {self.occupied()})"
            )
        return info

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
class _SlotInfo:
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
    chosen = next(iter(linears.values())).weight.device if device is None else torch.device(device)
    if chosen.type == "meta":
        raise AdapterError(
            "the transformer's weights are on the meta device, as offloading leaves them; "
            "tell the bank with device= where the transformer computes"
        )
    return chosen
