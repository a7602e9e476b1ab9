"""Engine: many DreamBooth-LoRA fine-tunes advance together on one frozen transformer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from corrector.adapters import SD3_TARGETS, Adapter, AdapterBank
from corrector.dreambooth.blocks import compile_blocks, recompute_blocks
from corrector.dreambooth.finetune import FineTune, check_fits
from corrector.dreambooth.learning_rate import learning_rate
from corrector.dreambooth.objective import NoiseTable
from corrector.dreambooth.optimiser import PackedAdamW
from corrector.dreambooth.packed_pass import SlotRows, packed_pass, same_shape_groups
from corrector.dreambooth.reports import SlotFailure, StepReport
from corrector.dreambooth.training_run import TrainingRun, saved_task
from corrector.dreambooth.workers import Workers
from corrector.errors import UserError

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel


class Engine:
    """Trains up to ``slots`` LoRA adapters of one frozen transformer; every forward is shared by all of them.

    :meth:`admit` puts a fine-tune into a free slot at any time. :meth:`step` makes one optimiser step of every active
    fine-tune. A fine-tune that has made its steps or was stopped stays in ``finished`` until :meth:`release`. A fine-tune
    whose loss or gradient is not finite leaves its slot and is listed in ``failures``. Random draws, losses and weights of
    a fine-tune depend neither on its slot nor, up to rounding, on the others.

    The transformer may be in bfloat16; adapters and their optimiser state are float32.
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
        """
        Args:
            rank: The highest rank that a slot can hold.
            report_every: Steps after which losses are fetched from the device; more than 1 keeps a GPU busy.
            tokens_per_forward: Most tokens, image patches and text, in one forward and backward, which bounds the memory
                of activations; None: all. One row always goes through.
            checkpointing: Whether blocks are computed again in the backward instead of keeping their activations.
            compile: Whether blocks are compiled: True with inductor, or the name of a backend of torch.compile.
            workers: Data-parallel workers that share every step's rows.
            device: Where the transformer computes; None: where its weights are, which is wrong for an offloaded one.
        """
        self._device = torch.device(transformer.device if device is None else device)
        self._transformer = transformer.requires_grad_(False).eval()
        self._table = NoiseTable.of(scheduler)
        recompute_blocks(transformer, checkpointing)
        backend = "inductor" if compile is True else compile
        self.compiled = bool(backend) and compile_blocks(transformer, self._device, str(backend))
        """Whether the blocks are compiled."""
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
        """Fine-tunes that failed, in the order of their detection."""
        self._optimiser = PackedAdamW(self.bank)
        self._report_every = report_every
        self._tokens_per_forward = tokens_per_forward
        self._workers = workers or Workers()
        self._runs: dict[int, TrainingRun] = {}
        self._pending: list[_Pending] = []

    @property
    def free_slots(self) -> list[int]:
        """Slots into which :meth:`admit` can put a fine-tune, ascending."""
        return [slot for slot in range(1, self.bank.slots + 1) if slot not in self._runs]

    @property
    def active(self) -> list[str]:
        """Names of the fine-tunes that :meth:`step` will advance."""
        return [run.name for run in self._active_runs()]

    @property
    def finished(self) -> list[str]:
        """Names of the fine-tunes that have made their steps or were stopped, and wait for :meth:`release`."""
        return [run.name for _, run in sorted(self._runs.items()) if run.done]

    def slot_of(self, name: str) -> int:
        """The bank's slot that holds the adapter of ``name`` as it is now."""
        return self._run(name).slot

    def steps_of(self, name: str) -> int:
        """Optimiser steps that ``name`` has made; does not wait for the device."""
        return self._run(name).step

    def history(self, name: str) -> list[StepReport]:
        """The reports of all steps of ``name`` so far; they are gone after :meth:`release`."""
        self.collect()
        return list(self._run(name).history)

    def admit(self, task: FineTune) -> int:
        """Puts ``task`` into a free slot with a fresh adapter and fresh optimiser state; returns the slot.

        Raises :class:`UserError` if the task lacks something or does not fit the base, ValueError if no slot is free or
        the name is taken.
        """
        if not self.free_slots:
            raise ValueError(f"no free slot for {task.name}: all {self.bank.slots} are taken")
        return self._place(task, self.free_slots[0]).slot

    def step(self) -> dict[str, StepReport]:
        """One optimiser step of every active fine-tune; returns the newest report of each where losses were fetched."""
        runs = self._active_runs()
        if not runs:
            return {}
        losses = self._backward([run.next_rows() for run in runs])
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
                run.sampler.prefetch()  # the device is still at this step
        if len(self._pending) < self._report_every and not any(run.done for run in runs):
            return {}
        self.collect()
        return {run.name: run.history[-1] for run in runs if not run.failed}

    def collect(self) -> None:
        """Fetches the losses of all steps since the last call, and removes the fine-tunes that have failed.

        Every method that returns a history or a state calls it first.
        """
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        values = torch.cat([entry.values for entry in pending]).tolist()
        steps = [made for entry in pending for made in entry.steps]
        for (run, step, rate), (loss, preserved, norm) in zip(steps, values, strict=True):
            if run.failed:
                continue
            settings = run.task.hyperparameters
            kept = preserved if settings.preservation_rows(step - 1) else None
            report = StepReport(step, settings.steps, loss, kept, norm, rate)
            if report.finite:
                run.history.append(report)
            else:
                run.failed = True
                self.failures.append(SlotFailure.of(run.name, report, run.saved_step))
                self._vacate(run)

    def stop(self, name: str) -> None:
        """Ends ``name`` after the steps that it has made; its adapter can be released."""
        run = self._run(name)
        self.collect()
        run.stopped = True

    def release(self, name: str) -> Adapter:
        """Returns the finished adapter of ``name`` and frees its slot. Raises ValueError if it is still active."""
        self.collect()
        run = self._run(name)
        if not run.done:
            raise ValueError(
                f"{name} is at step {run.step} of {run.task.hyperparameters.steps}; stop it first"
            )
        adapter = self.bank.export(run.slot, steps=str(run.step), seed=str(run.task.hyperparameters.seed))
        self._vacate(run)
        return adapter

    def state_of(self, name: str) -> dict[str, Any]:
        """Everything that another engine needs to :meth:`resume` ``name``, as plain values and CPU tensors.

        Raises KeyError if ``name`` is not here or has failed: a state holds finite numbers only.
        """
        self.collect()
        run = self._run(name)
        return {
            "targets": list(self.bank.targets),
            "base_revision": self.bank.base_revision,
            "run": run.state(self._optimiser.state_of(run.slot, run.task.hyperparameters.rank)),
        }

    def mark_saved(self, name: str) -> None:
        """Notes that the state of ``name`` as it is now has been written, so that a failure can name that checkpoint."""
        run = self._run(name)
        run.saved_step = run.step

    def resume(self, state: Mapping[str, Any]) -> str:
        """Continues, in a free slot, exactly from a :meth:`state_of`; returns the fine-tune's name.

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

    def _active_runs(self) -> list[TrainingRun]:
        return [run for _, run in sorted(self._runs.items()) if not run.done]

    def _run(self, name: str) -> TrainingRun:
        for run in self._runs.values():
            if run.name == name:
                return run
        raise KeyError(
            f"no fine-tune {name} in this engine; it has {[run.name for run in self._runs.values()]}"
        )

    def _place(self, task: FineTune, slot: int) -> TrainingRun:
        if any(run.name == task.name for run in self._runs.values()):
            raise ValueError(f"a fine-tune {task.name} is in this engine already")
        check_fits(task, self._transformer.config, self.bank.rank)
        settings = task.hyperparameters
        self.bank.initialise(slot, rank=settings.rank, alpha=settings.alpha, seed=settings.seed)
        self._optimiser.configure(slot, settings)
        run = self._runs[slot] = TrainingRun.of(
            task, slot, self._table, self._device, self._transformer.dtype
        )
        return run

    def _check_base(self, state: Mapping[str, Any]) -> None:
        if state["targets"] != list(self.bank.targets) or state["base_revision"] != self.bank.base_revision:
            raise UserError(
                "the checkpoint belongs to another base or other target layers; start afresh, or go back to it"
            )

    def _vacate(self, run: TrainingRun) -> None:
        self.bank.unload(run.slot)
        del self._runs[run.slot]

    def _backward(self, slots: Sequence[SlotRows]) -> Tensor:
        """Adds this worker's share of the gradients of ``slots``, all active ones; returns its losses ``[len(slots), 2]``."""
        losses = {each.slot: torch.zeros(2, device=self._device) for each in slots}
        # Sorted by group, so that a worker's share spans few groups.
        in_groups = [each for group in same_shape_groups(slots) for each in group]
        for group in same_shape_groups(self._share(in_groups)):
            rows = self._tokens_per_forward
            if rows is not None:
                rows = max(1, rows // group[0].row_tokens(self._transformer.config.patch_size))
            found = packed_pass(self._transformer, self.bank, group, rows)
            losses |= zip([each.slot for each in group], found, strict=True)
        return torch.stack([losses[each.slot] for each in slots])

    def _share(self, slots: Sequence[SlotRows]) -> list[SlotRows]:
        if self._workers.alone:
            return list(slots)
        patch = self._transformer.config.patch_size
        start, stop = self._workers.share([cost for each in slots for cost in each.row_costs(patch)])
        shares, offset = [], 0
        for each in slots:
            own = range(max(start - offset, 0), min(stop - offset, len(each)))
            if own:
                shares.append(each.span(own.start, own.stop))
            offset += len(each)
        return shares

    def _restore(self, saved: Mapping[str, Any]) -> None:
        task = saved_task(saved)
        slot = saved["slot"] if saved["slot"] in self.free_slots else self.free_slots[0]
        optimiser = self._place(task, slot).restore(saved)
        self._optimiser.restore(slot, task.hyperparameters.rank, optimiser)


@dataclass(frozen=True)
class _Pending:
    """A step whose losses are still on the device."""

    steps: list[tuple[TrainingRun, int, float]]
    values: Tensor
    """Loss, preservation loss and gradient norm, ``[len(steps), 3]``."""
