"""A fine-tune under way in a slot, and what is written down of it."""

from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from corrector.base import LatentPosterior, TextEmbeddings
from corrector.dreambooth.draws import Draws
from corrector.dreambooth.finetune import FineTune
from corrector.dreambooth.objective import NoiseTable
from corrector.dreambooth.optimiser import SlotState
from corrector.dreambooth.packed_pass import Part
from corrector.dreambooth.reports import StepReport
from corrector.prompts import HyperParameters

_POSTERIORS = ("posterior", "class_posterior", "mirrored_posterior")
_TEXTS = ("prompt", "guards", "class_prompt")


@dataclass
class Run:
    """A fine-tune in its slot."""

    task: FineTune
    slot: int
    draws: Draws
    texts: TextEmbeddings
    step: int = 0
    stopped: bool = False
    failed: bool = False
    saved_step: int | None = None
    """Steps made when :meth:`state` was last taken, or None."""
    history: list[StepReport] = field(default_factory=list)

    @staticmethod
    def of(task: FineTune, slot: int, table: NoiseTable, device: torch.device, dtype: torch.dtype) -> "Run":
        """At its beginning, for a transformer on ``device`` in ``dtype``."""
        task = _on_cpu(task)
        return Run(task, slot, Draws(task, table), task.texts.to(device=device, dtype=dtype))

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def done(self) -> bool:
        """Whether it makes no more steps."""
        return self.stopped or self.step >= self.task.hyperparameters.steps

    def part(self) -> Part:
        """The rows of the next step."""
        return Part(self.slot, self.draws.next(), self.texts)

    def state(self, optimiser: SlotState) -> dict[str, Any]:
        """Everything that an exact resume needs, as plain values and CPU tensors; see :func:`saved_task`."""
        self.saved_step = self.step
        return {
            "slot": self.slot,
            "name": self.task.name,
            "hyperparameters": self.task.hyperparameters.model_dump(mode="json"),
            "data": {key: _tensors(getattr(self.task, key)) for key in (*_POSTERIORS, *_TEXTS)},
            "step": self.step,
            "stopped": self.stopped,
            "history": [list(astuple(report)) for report in self.history],
            "draws": self.draws.state(),
            "optimiser": {key: getattr(optimiser, key) for key in ("weights", "mean", "variance", "updates")},
        }

    def go_on_from(self, saved: Mapping[str, Any]) -> SlotState:
        """Takes over what :meth:`state` gave, but for the optimiser's part, which it returns."""
        self.step, self.stopped = saved["step"], saved["stopped"]
        self.saved_step = self.step
        self.history = [StepReport(*values) for values in saved["history"]]
        self.draws.restore(saved["draws"])
        return SlotState(**saved["optimiser"])


def saved_task(saved: Mapping[str, Any]) -> FineTune:
    """The fine-tune of which :meth:`Run.state` was taken."""
    kinds = dict.fromkeys(_POSTERIORS, LatentPosterior) | dict.fromkeys(_TEXTS, TextEmbeddings)
    data: dict[str, Any] = {
        key: None if saved["data"][key] is None else kind(*saved["data"][key]) for key, kind in kinds.items()
    }
    return FineTune(name=saved["name"], hyperparameters=HyperParameters(**saved["hyperparameters"]), **data)


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
