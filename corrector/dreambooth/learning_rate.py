"""Learning-rate schedules, one value per optimiser step."""

import math

from corrector.prompts import HyperParameters


def learning_rate(hyperparameters: HyperParameters, step: int) -> float:
    """Learning rate of optimiser step ``step`` (0-based): linear warm-up from 0, then constant, linear or cosine decay.

    Equals ``diffusers.optimization.get_scheduler`` with the same name, warm-up and total steps.
    """
    warmup, total = hyperparameters.warmup_steps, hyperparameters.steps
    if step < warmup:
        return hyperparameters.learning_rate * step / max(1, warmup)
    left = (total - step) / max(1, total - warmup)
    if hyperparameters.lr_schedule == "linear":
        return hyperparameters.learning_rate * max(0.0, left)
    if hyperparameters.lr_schedule == "cosine":
        progress = (step - warmup) / max(1, total - warmup)
        return hyperparameters.learning_rate * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
    return hyperparameters.learning_rate
