"""Engine: many DreamBooth-LoRA fine-tunes advance together on one frozen transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from corrector.adapters import SD3_TARGETS, Adapter, AdapterBank
from corrector.dreambooth.blocks import compile_blocks, recompute_blocks
from corrector.dreambooth.finetune import FineTune, check_fits
from corrector.dreambooth.objective import NoiseTable
from corrector.dreambooth.optimiser import PackedAdamW
from corrector.dreambooth.packed_pass import Part, alike, packed_pass
from corrector.dreambooth.reports import SlotFailure, StepReport
from corrector.dreambooth.run import Run, saved_task
from corrector.dreambooth.schedule import learning_rate
from corrector.dreambooth.workers import Workers
from corrector.errors import UserError

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel


class Engine:
    """A pack: ``slots`` places for fine-tunes that share every forward, each on its own course.

    A fine-tune enters with :meth:`admit`, at any time; every :meth:`step` is one optimiser step of all that are under
    way; one that is through or stopped waits in ``finished`` for :meth:`release`, and its slot is free again. What a
    fine-tune draws, learns and reports does not depend on what else is in the pack, nor on its slot. One whose loss or
    gradient is no longer finite leaves the pack alone, see ``failures``.

    The transformer stays frozen and may be in bfloat16; adapters and their optimiser state are float32 always.
    """

    def __init__(
        self,
        transformer: SD3Transformer2DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        *,
        slots: int,
        rank: int,
        targets: Sequence[str] = SD3_TARGETS,
        base_revision: str | None = None,
        report_every: int = 1,
        tokens_per_forward: int | None = None,
        checkpointing: bool = False,
        compile: bool | str = False,  # noqa: A002 - what torch calls it
        workers: Workers | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        """``rank`` is the highest that a slot can hold.

        Losses are fetched from the device every ``report_every`` steps: 1 follows every step, more keep a GPU busy.
        Rows of at most ``tokens_per_forward`` tokens together, image patches and text, are held for one backward (None:
        all), so that the memory of activations is bounded at any mix of resolutions; one row is always held. With
        ``checkpointing`` a block's activations are computed again in the backward instead of held. ``compile`` compiles
        the blocks, True with inductor, a name with that backend. ``workers`` share every step's rows. ``device`` is
        where the transformer computes, to be named where its weights are streamed from elsewhere.
        """
        self._device = torch.device(transformer.device if device is None else device)
        self._transformer = transformer.requires_grad_(False).eval()
        self._table = NoiseTable.of(scheduler)
        recompute_blocks(transformer, checkpointing)
        backend = "inductor" if compile is True else compile
        self.compiled = bool(backend) and compile_blocks(transformer, self._device, str(backend))
        """Whether the blocks are compiled, where that was asked for and works."""
        self.bank = AdapterBank(
            transformer,
            slots=slots,
            rank=rank,
            targets=targets,
            trainable=True,
            base_revision=base_revision,
            static=self.compiled,
            device=self._device,
        )
        self.failures: list[SlotFailure] = []
        """Fine-tunes that could not go on, in the order in which that was found."""
        self._optimiser = PackedAdamW(self.bank)
        self._report_every = report_every
        self._tokens_per_forward = tokens_per_forward
        self._workers = workers or Workers()
        self._runs: dict[int, Run] = {}
        self._pending: list[_Pending] = []

    @property
    def free_slots(self) -> list[int]:
        """Slots into which :meth:`admit` can put a fine-tune, ascending."""
        return [slot for slot in range(1, self.bank.slots + 1) if slot not in self._runs]

    @property
    def active(self) -> list[str]:
        """Names of the fine-tunes that :meth:`step` will advance."""
        return [run.name for run in self._under_way()]

    @property
    def finished(self) -> list[str]:
        """Names of the fine-tunes that are through, or stopped, and wait for :meth:`release`."""
        return [run.name for _, run in sorted(self._runs.items()) if run.done]

    def slot_of(self, name: str) -> int:
        """The slot of ``name``, in which its adapter, as it is now, can be sampled."""
        return self._run(name).slot

    def steps_of(self, name: str) -> int:
        """Optimiser steps that ``name`` has made; unlike :meth:`history`, waits for no device."""
        return self._run(name).step

    def history(self, name: str) -> list[StepReport]:
        """The reports of all steps of ``name`` so far; :meth:`release` forgets them."""
        self.collect()
        return list(self._run(name).history)

    def admit(self, task: FineTune) -> int:
        """Gives ``task`` a free slot, a fresh adapter and fresh optimiser state; returns the slot.

        Raises :class:`UserError` if the task lacks something or does not fit the base, ValueError if no slot is free or
        the name is taken.
        """
        if not self.free_slots:
            raise ValueError(f"no free slot for {task.name}: all {self.bank.slots} are taken")
        return self._place(task, self.free_slots[0]).slot

    def step(self) -> dict[str, StepReport]:
        """One optimiser step of every active fine-tune; the newest report of each, if this step fetched any."""
        runs = self._under_way()
        if not runs:
            return {}
        losses = self._backward([run.part() for run in runs])
        self._optimiser.gather()
        self._workers.sum_(self._optimiser.gradients)
        self._workers.sum_(losses)
        rates = {run.slot: learning_rate(run.task.hyperparameters, run.step) for run in runs}
        norms = self._optimiser.step(rates)
        for run in runs:
            run.step += 1
        values = torch.cat([losses, norms.unsqueeze(1)], dim=1)
        self._pending.append(_Pending([(run, run.step, rates[run.slot]) for run in runs], values))
        for run in runs:
            if not run.done:
                run.draws.ahead()  # the device is still at this step
        if len(self._pending) < self._report_every and not any(run.done for run in runs):
            return {}
        self.collect()
        return {run.name: run.history[-1] for run in runs if not run.failed}

    def collect(self) -> None:
        """Fetches the losses of the steps since the last time, in one go, and drops the fine-tunes that failed.

        Whatever tells or writes down where a fine-tune stands does so first, and knows no more of one that failed.
        """
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        values = torch.cat([entry.values for entry in pending]).tolist()
        steps = [made for entry in pending for made in entry.steps]
        for (run, step, rate), (loss, kept, norm) in zip(steps, values, strict=True):
            if run.failed:
                continue
            total, preserved = run.task.hyperparameters.steps, run.task.preservation_rows > 0
            report = StepReport(step, total, loss, kept if preserved else None, norm, rate)
            if report.finite:
                run.history.append(report)
            else:
                run.failed = True
                self.failures.append(SlotFailure.of(run.name, report, run.saved_step))
                self._vacate(run)

    def stop(self, name: str) -> None:
        """Ends ``name`` after the steps that it has made; its adapter can be released, unless it proves to have failed."""
        run = self._run(name)
        self.collect()
        run.stopped = True

    def release(self, name: str) -> Adapter:
        """The finished adapter of ``name``; its slot is free from then on. Raises ValueError if it is still under way."""
        self.collect()
        run = self._run(name)
        if not run.done:
            raise ValueError(
                f"{name} is at step {run.step} of {run.task.hyperparameters.steps}; stop it first"
            )
        adapter = self.bank.export(run.slot, steps=str(run.step), seed=str(run.task.hyperparameters.seed))
        self._vacate(run)
        return adapter

    def state_dict(self) -> dict[str, Any]:
        """Everything that an exact resume needs, the fine-tunes' own data included, as plain values and CPU tensors."""
        self.collect()
        return {
            "targets": list(self.bank.targets),
            "base_revision": self.bank.base_revision,
            "runs": [self._run_state(run) for _, run in sorted(self._runs.items())],
            "failures": [asdict(failure) for failure in self.failures],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up in an empty engine where another's :meth:`state_dict` was taken.

        The pack may be wider or of higher rank than the one that was saved. Raises :class:`UserError` if the fine-tunes
        belong to another base or do not fit in, and leaves the engine empty then.
        """
        if self._runs:
            raise ValueError("the engine is not empty; load into a fresh one")
        self._check_base(state)
        if len(state["runs"]) > self.bank.slots:
            raise UserError(
                f"the checkpoint holds {len(state['runs'])} fine-tunes; this pack has {self.bank.slots} slots"
            )
        try:
            for saved in state["runs"]:
                self._restore(saved)
        except BaseException:
            for run in list(self._runs.values()):
                self._vacate(run)
            raise
        self.failures = [SlotFailure(**failure) for failure in state["failures"]]

    def state_of(self, name: str) -> dict[str, Any]:
        """What another engine needs to go on with ``name`` alone; see :meth:`resume`.

        Raises KeyError if ``name`` is not here, or proves to have failed: a state holds finite numbers only.
        """
        self.collect()
        return {
            "targets": list(self.bank.targets),
            "base_revision": self.bank.base_revision,
            "run": self._run_state(self._run(name)),
        }

    def resume(self, state: Mapping[str, Any]) -> str:
        """Goes on with a fine-tune where :meth:`state_of` was taken, in a free slot; returns its name.

        Raises :class:`UserError` if it belongs to another base, ValueError if no slot is free or its name is taken.
        """
        self._check_base(state)
        if not self.free_slots:
            raise ValueError(f"no free slot for {state['run']['name']}: all {self.bank.slots} are taken")
        before = set(self._runs)
        try:
            self._restore(state["run"])
        except BaseException:
            for slot in set(self._runs) - before:
                self._vacate(self._runs[slot])
            raise
        return str(state["run"]["name"])

    def _under_way(self) -> list[Run]:
        return [run for _, run in sorted(self._runs.items()) if not run.done]

    def _run(self, name: str) -> Run:
        for run in self._runs.values():
            if run.name == name:
                return run
        raise KeyError(
            f"no fine-tune {name} in this engine; it has {[run.name for run in self._runs.values()]}"
        )

    def _place(self, task: FineTune, slot: int) -> Run:
        if any(run.name == task.name for run in self._runs.values()):
            raise ValueError(f"a fine-tune {task.name} is in this engine already")
        check_fits(task, self._transformer.config, self.bank.rank)
        settings = task.hyperparameters
        self.bank.initialise(slot, rank=settings.rank, alpha=settings.alpha, seed=settings.seed)
        self._optimiser.configure(slot, settings)
        run = self._runs[slot] = Run.of(task, slot, self._table, self._device, self._transformer.dtype)
        return run

    def _check_base(self, state: Mapping[str, Any]) -> None:
        if state["targets"] != list(self.bank.targets) or state["base_revision"] != self.bank.base_revision:
            raise UserError(
                "the checkpoint belongs to another base or other target layers; start afresh, or go back to it"
            )

    def _vacate(self, run: Run) -> None:
        self.bank.unload(run.slot)
        del self._runs[run.slot]

    def _backward(self, parts: Sequence[Part]) -> Tensor:
        """Adds this worker's share of the gradients of ``parts``, one per active slot; its losses ``[len(parts), 2]``."""
        losses = {part.slot: torch.zeros(2, device=self._device) for part in parts}
        in_groups = [part for group in alike(parts) for part in group]  # so that a share has few of them
        for group in alike(self._share(in_groups)):
            at_once = self._tokens_per_forward
            if at_once is not None:
                at_once = max(1, at_once // group[0].row_tokens(self._transformer.config.patch_size))
            found = packed_pass(self._transformer, self.bank, group, at_once)
            losses |= zip([part.slot for part in group], found, strict=True)
        return torch.stack([losses[part.slot] for part in parts])

    def _share(self, parts: Sequence[Part]) -> list[Part]:
        """This worker's rows of ``parts``."""
        if self._workers.alone:
            return list(parts)
        patch = self._transformer.config.patch_size
        start, stop = self._workers.share([cost for part in parts for cost in part.row_costs(patch)])
        shares, offset = [], 0
        for part in parts:
            own = range(max(start - offset, 0), min(stop - offset, len(part.rows)))
            if own:
                shares.append(part.span(own.start, own.stop))
            offset += len(part.rows)
        return shares

    def _run_state(self, run: Run) -> dict[str, Any]:
        return run.state(self._optimiser.state_of(run.slot, run.task.hyperparameters.rank))

    def _restore(self, saved: Mapping[str, Any]) -> None:
        task = saved_task(saved)
        slot = saved["slot"] if saved["slot"] in self.free_slots else self.free_slots[0]
        optimiser = self._place(task, slot).go_on_from(saved)
        self._optimiser.restore(slot, task.hyperparameters.rank, optimiser)


@dataclass(frozen=True)
class _Pending:
    """A step whose numbers are still on the device."""

    steps: list[tuple[Run, int, float]]
    values: Tensor
    """``[len(steps), 3]``: loss, preservation loss, gradient norm."""
