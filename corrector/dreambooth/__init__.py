"""DreamBooth-LoRA: the SD3 objective, the engine that trains many adapters in shared forwards, its checkpoints, and the
planner that says how many fit a device.
"""

from typing import TYPE_CHECKING

from corrector.lazy_names import lazy_names

if TYPE_CHECKING:
    from corrector.dreambooth.engine import Engine
    from corrector.dreambooth.finetune import FineTune
    from corrector.dreambooth.reports import SlotFailure, StepReport
    from corrector.dreambooth.workers import Workers

__all__ = ["Engine", "FineTune", "SlotFailure", "StepReport", "Workers"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "engine": ("Engine",),
        "finetune": ("FineTune",),
        "reports": ("SlotFailure", "StepReport"),
        "workers": ("Workers",),
    },
)
