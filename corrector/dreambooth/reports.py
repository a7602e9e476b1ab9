"""Reports of an engine: losses of a step, and failures."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

_EXPLODED = 10.0
_WINDOW = 10


@dataclass(frozen=True)
class StepReport:
    """One optimiser step of one fine-tune."""

    step: int
    """1-based: steps done, this one included."""
    steps: int
    """Steps asked for."""
    loss: float
    """Mean loss over the exemplar rows."""
    preservation_loss: float | None
    """Mean loss over the preservation rows, before its weight; None without preservation."""
    grad_norm: float
    """Of all the adapter's gradients together, before clipping."""
    lr: float

    @property
    def finite(self) -> bool:
        """Whether losses and gradient are finite, so that training can go on."""
        return all(isfinite(value) for value in (self.loss, self.preservation_loss or 0.0, self.grad_norm))


def exploded(history: Sequence[StepReport]) -> str | None:
    """The reason if the losses of ``history`` are finite and have diverged; None otherwise.

    Diverged means that the mean loss of the last ten steps is more than ten times that of the first ten.
    """
    if len(history) < 2 * _WINDOW:
        return None
    first, last = (fmean(report.loss for report in part) for part in (history[:_WINDOW], history[-_WINDOW:]))
    if last <= _EXPLODED * first:
        return None
    return (
        f"the loss rose from {first:.3g} to {last:.3g} by step {history[-1].step}; "
        "lower the learning rate or warm up longer"
    )


@dataclass(frozen=True)
class SlotFailure:
    """A fine-tune that failed; its slot is free again."""

    name: str
    step: int
    """The step that failed, 1-based."""
    reason: str
    """Which value was not finite, at which step, what to try, and which checkpoint remains."""
    saved_step: int | None = None
    """The step of its last checkpoint, which is good and can be resumed; None where there is none."""

    @staticmethod
    def of(name: str, report: StepReport, saved_step: int | None) -> "SlotFailure":
        """The failure that ``report``, which is not finite, shows."""
        if not isfinite(report.loss):
            what = f"the loss became {report.loss}"
        elif not isfinite(report.preservation_loss or 0.0):
            what = f"the preservation loss became {report.preservation_loss}"
        else:
            what = f"the gradient norm became {report.grad_norm}"
        reason = (
            f"{what} at step {report.step} of {report.steps} (learning rate {report.lr:.3g}); "
            "lower the learning rate or warm up longer"
        )
        if saved_step is not None:
            reason += f"; its checkpoint of step {saved_step} is kept"
        return SlotFailure(name, report.step, reason, saved_step)
