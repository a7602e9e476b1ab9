"""DreamBooth-LoRA: the SD3 objective as pure functions, the engine that advances many fine-tunes in shared forwards,
its checkpoints, and the planner that says how many fit.
"""

from corrector.dreambooth.engine import Engine
from corrector.dreambooth.finetune import FineTune
from corrector.dreambooth.reports import SlotFailure, StepReport
from corrector.dreambooth.workers import Workers

__all__ = ["Engine", "FineTune", "SlotFailure", "StepReport", "Workers"]
