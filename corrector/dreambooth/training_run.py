"""A fine-tune in its slot, and the state from which another engine resumes it."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from corrector.base import LatentPosterior, TextEmbeddings
from corrector.dreambooth.finetune import FineTune
from corrector.dreambooth.objective import NoiseTable
from corrector.dreambooth.optimiser import SlotState
from corrector.dreambooth.packed_pass import SlotRows
from corrector.dreambooth.reports import StepReport
from corrector.dreambooth.step_rows import RowSampler
from corrector.prompts import HyperParameters

_POSTERIORS = ("posterior", "class_posterior", "mirrored_posterior")
_TEXTS = ("prompt", "guards", "class_prompt")


@dataclass
class TrainingRun:
    """A fine-tune in its slot."""

    task: FineTune
    slot: int
    sampler: RowSampler
    texts: TextEmbeddings
    step: int = 0
    stopped: bool = False
    failed: bool = False
    saved_step: int | None = None
    """Steps made at the last state that was saved, or None."""
    history: list[StepReport] = field(default_factory=list)

    @staticmethod
    def of(
        task: FineTune, slot: int, table: NoiseTable, device: torch.device, dtype: torch.dtype
    ) -> "TrainingRun":
        """A run at its first step, for a transformer on ``device`` in ``dtype``."""
        latents: dict[str, Any] = {key: _on_cpu(getattr(task, key)) for key in _POSTERIORS}
        task = replace(task, **latents)
        return TrainingRun(task, slot, RowSampler(task, table), task.texts.to(device=device, dtype=dtype))

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def done(self) -> bool:
        """Whether it makes no more steps."""
        return self.stopped or self.step >= self.task.hyperparameters.steps

    def next_rows(self) -> SlotRows:
        return SlotRows(self.slot, self.sampler.next(), self.texts)

    def state(self, optimiser: SlotState) -> dict[str, Any]:
        """Everything that an exact resume needs, as plain values and CPU tensors; see :func:`saved_task`."""
        return {
            "slot": self.slot,
            "name": self.task.name,
            "hyperparameters": self.task.hyperparameters.model_dump(mode="json"),
            "data": {key: _tensors(getattr(self.task, key)) for key in (*_POSTERIORS, *_TEXTS)},
            "step": self.step,
            "stopped": self.stopped,
            "history": [list(astuple(report)) for report in self.history],
            "draws": self.sampler.state(),
            "optimiser": {key: getattr(optimiser, key) for key in ("weights", "mean", "variance", "updates")},
        }

    def restore(self, saved: Mapping[str, Any]) -> SlotState:
        """Continues from what :meth:`state` returned; returns the optimiser's state, which the caller restores."""
        self.step, self.stopped = saved["step"], saved["stopped"]
        self.saved_step = self.step
        self.history = [StepReport(*values) for values in saved["history"]]
        self.sampler.restore(saved["draws"], self.step)
        return SlotState(**saved["optimiser"])


def saved_task(saved: Mapping[str, Any]) -> FineTune:
    """The fine-tune in what :meth:`TrainingRun.state` returned."""
    kinds = dict.fromkeys(_POSTERIORS, LatentPosterior) | dict.fromkeys(_TEXTS, TextEmbeddings)
    data: dict[str, Any] = {
        key: None if saved["data"][key] is None else kind(*saved["data"][key]) for key, kind in kinds.items()
    }
    return FineTune(name=saved["name"], hyperparameters=HyperParameters(**saved["hyperparameters"]), **data)


def _on_cpu(posterior: LatentPosterior | None) -> LatentPosterior | None:
    """In float32 on the CPU, where rows are drawn."""
    if posterior is None:
        return None
    return LatentPosterior(posterior.mean.float().cpu(), posterior.std.float().cpu())


def _tensors(value: LatentPosterior | TextEmbeddings | None) -> list[Tensor] | None:
    if value is None:
        return None
    pair = (value.mean, value.std) if isinstance(value, LatentPosterior) else (value.prompt, value.pooled)
    return [tensor.detach().cpu().contiguous() for tensor in pair]
