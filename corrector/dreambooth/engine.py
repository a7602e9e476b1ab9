"""Engine: many DreamBooth-LoRA fine-tunes advance together on one frozen transformer."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor

from corrector.adapters import SD3_TARGETS, Adapter, AdapterBank
from corrector.base import LatentPosterior, TextEmbeddings
from corrector.dreambooth.draws import Draws
from corrector.dreambooth.finetune import FineTune, check_fits
from corrector.dreambooth.objective import NoiseTable
from corrector.dreambooth.optimiser import PackedAdamW, SlotState
from corrector.dreambooth.packed_pass import Part, packed_pass
from corrector.dreambooth.reports import SlotFailure, StepReport
from corrector.dreambooth.schedule import learning_rate
from corrector.errors import UserError
from corrector.prompts import HyperParameters


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
        rows_per_forward: int | None = None,
    ) -> None:
        """``rank`` is the highest that a slot can hold.

        Losses are fetched from the device every ``report_every`` steps: 1 follows every step, more keep a GPU busy. At
        most ``rows_per_forward`` rows are held for one backward (None: all), which bounds the memory of activations.
        """
        self._transformer = transformer.requires_grad_(False).eval()
        self._table = NoiseTable.of(scheduler)
        self.bank = AdapterBank(
            transformer, slots=slots, rank=rank, targets=targets, trainable=True, base_revision=base_revision
        )
        self.failures: list[SlotFailure] = []
        """Fine-tunes that could not go on, in the order in which that was found."""
        self._optimiser = PackedAdamW(self.bank.parameters())
        self._report_every = report_every
        self._rows_per_forward = rows_per_forward
        self._runs: dict[int, _Run] = {}
        self._pending: list[_Pending] = []

    @property
    def free_slots(self) -> list[int]:
        """Slots into which :meth:`admit` can put a fine-tune, ascending."""
        return [slot for slot in range(1, self.bank.slots + 1) if slot not in self._runs]

    @property
    def active(self) -> list[str]:
        """Names of the fine-tunes that :meth:`step` will advance."""
        return [run.task.name for run in self._under_way()]

    @property
    def finished(self) -> list[str]:
        """Names of the fine-tunes that are through, or stopped, and wait for :meth:`release`."""
        return [run.task.name for _, run in sorted(self._runs.items()) if run.done]

    def history(self, name: str) -> list[StepReport]:
        """The reports of all steps of ``name`` so far; :meth:`release` forgets them."""
        self._collect()
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
        losses: dict[int, Tensor] = {}
        for parts in _alike([Part(run.slot, run.draws.next(), run.texts) for run in runs]):
            means = packed_pass(self._transformer, self.bank, parts, self._rows_per_forward)
            losses.update(zip([part.slot for part in parts], means, strict=True))
        rates = {run.slot: learning_rate(run.task.hyperparameters, run.step) for run in runs}
        norms = self._optimiser.step(rates)
        for run in runs:
            run.step += 1
        values = torch.cat([torch.stack([losses[run.slot] for run in runs]), norms.unsqueeze(1)], dim=1)
        self._pending.append(_Pending([(run, run.step, rates[run.slot]) for run in runs], values))
        if len(self._pending) < self._report_every and not any(run.done for run in runs):
            return {}
        self._collect()
        return {run.task.name: run.history[-1] for run in runs if not run.failed}

    def stop(self, name: str) -> None:
        """Ends ``name`` after the steps that it has made; its adapter can be released, unless it proves to have failed."""
        run = self._run(name)
        self._collect()
        run.stopped = True

    def release(self, name: str) -> Adapter:
        """The finished adapter of ``name``; its slot is free from then on. Raises ValueError if it is still under way."""
        self._collect()
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
        self._collect()
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
        """What another engine needs to go on with ``name`` alone; see :meth:`resume`."""
        self._collect()
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

    def _under_way(self) -> list["_Run"]:
        return [run for _, run in sorted(self._runs.items()) if not run.done]

    def _run(self, name: str) -> "_Run":
        for run in self._runs.values():
            if run.task.name == name:
                return run
        raise KeyError(
            f"no fine-tune {name} in this engine; it has {[run.task.name for run in self._runs.values()]}"
        )

    def _place(self, task: FineTune, slot: int) -> "_Run":
        if any(run.task.name == task.name for run in self._runs.values()):
            raise ValueError(f"a fine-tune {task.name} is in this engine already")
        check_fits(task, self._transformer.config, self.bank.rank)
        task, settings = _on_cpu(task), task.hyperparameters
        self.bank.initialise(slot, rank=settings.rank, alpha=settings.alpha, seed=settings.seed)
        self._optimiser.configure(slot, settings)
        texts = task.texts.to(device=self._transformer.device, dtype=self._transformer.dtype)
        run = self._runs[slot] = _Run(task, slot, Draws(task, self._table), texts)
        return run

    def _check_base(self, state: Mapping[str, Any]) -> None:
        if state["targets"] != list(self.bank.targets) or state["base_revision"] != self.bank.base_revision:
            raise UserError(
                "the checkpoint belongs to another base or other target layers; start afresh, or go back to it"
            )

    def _vacate(self, run: "_Run") -> None:
        self.bank.unload(run.slot)
        del self._runs[run.slot]

    def _collect(self) -> None:
        """Fetches the losses of the steps since the last time, in one go, and drops the fine-tunes that failed."""
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
                self.failures.append(SlotFailure.of(run.task.name, report))
                self._vacate(run)

    def _run_state(self, run: "_Run") -> dict[str, Any]:
        task = run.task
        weights = self._optimiser.state_of(run.slot, task.hyperparameters.rank)
        return {
            "slot": run.slot,
            "name": task.name,
            "hyperparameters": task.hyperparameters.model_dump(mode="json"),
            "data": {key: _tensors(getattr(task, key)) for key in (*_POSTERIORS, *_TEXTS)},
            "step": run.step,
            "stopped": run.stopped,
            "history": [list(astuple(report)) for report in run.history],
            "draws": run.draws.state(),
            "optimiser": {key: getattr(weights, key) for key in ("weights", "mean", "variance", "updates")},
        }

    def _restore(self, saved: Mapping[str, Any]) -> None:
        kinds = dict.fromkeys(_POSTERIORS, LatentPosterior) | dict.fromkeys(_TEXTS, TextEmbeddings)
        data: dict[str, Any] = {
            key: None if saved["data"][key] is None else kind(*saved["data"][key])
            for key, kind in kinds.items()
        }
        settings = HyperParameters(**saved["hyperparameters"])
        task = FineTune(name=saved["name"], hyperparameters=settings, **data)
        slot = saved["slot"] if saved["slot"] in self.free_slots else self.free_slots[0]
        run = self._place(task, slot)
        run.step, run.stopped = saved["step"], saved["stopped"]
        run.history = [StepReport(*values) for values in saved["history"]]
        run.draws.restore(saved["draws"])
        self._optimiser.restore(slot, task.hyperparameters.rank, SlotState(**saved["optimiser"]))


_POSTERIORS = ("posterior", "class_posterior", "mirrored_posterior")
_TEXTS = ("prompt", "guards", "class_prompt")


@dataclass
class _Run:
    """A fine-tune in its slot."""

    task: FineTune
    slot: int
    draws: Draws
    texts: TextEmbeddings
    step: int = 0
    stopped: bool = False
    failed: bool = False
    history: list[StepReport] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.stopped or self.step >= self.task.hyperparameters.steps


@dataclass(frozen=True)
class _Pending:
    """A step whose numbers are still on the device."""

    steps: list[tuple[_Run, int, float]]
    values: Tensor
    """``[len(steps), 3]``: loss, preservation loss, gradient norm."""


def _alike(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Groups the parts that can share a forward: the same latent shape and number of tokens."""
    groups: defaultdict[tuple[int, ...], list[Part]] = defaultdict(list)
    for part in parts:
        groups[*part.rows.noisy.shape[1:], part.texts.prompt.shape[1]].append(part)
    yield from groups.values()


def _on_cpu(task: FineTune) -> FineTune:
    """``task`` with its latents where the draws are made: on the CPU, in float32."""

    def moved(posterior: LatentPosterior | None) -> LatentPosterior | None:
        return (
            None
            if posterior is None
            else LatentPosterior(posterior.mean.float().cpu(), posterior.std.float().cpu())
        )

    latents: dict[str, Any] = {key: moved(getattr(task, key)) for key in _POSTERIORS}
    return replace(task, **latents)


def _tensors(value: LatentPosterior | TextEmbeddings | None) -> list[Tensor] | None:
    if value is None:
        return None
    pair = (value.mean, value.std) if isinstance(value, LatentPosterior) else (value.prompt, value.pooled)
    return [tensor.detach().cpu().contiguous() for tensor in pair]
