"""The rungs of a search: the optimiser steps at which a trial is scored, with the number of images and sampling steps.

Three sets of seeds are disjoint: for trials, for the confirmation of the best trials, and for the gate (the batch's own).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from corrector.prompts import EvaluationSettings, SearchSettings
from corrector.prompts.hyperparameters import MAX_SEED

_TRIAL_SEEDS = 1_000_000
_CONFIRMATION_SEEDS = 2_000_000
_GUARD_IMAGES = 8
"""Most images of a guard prompt: a trial's score needs the share that is lost, and the gate looks at more."""
_FEWEST_SAMPLING_STEPS = 0.5
"""Sampling steps at the first rung, as a share of the whole protocol's; half of them already show the subject."""


@dataclass(frozen=True)
class Rung:
    """A point at which a trial is scored: after `steps` optimiser steps, by the protocol `evaluation`."""

    steps: int
    evaluation: EvaluationSettings

    @property
    def images(self) -> int:
        """Images of the prompt itself."""
        return self.evaluation.images


def rungs(
    search: SearchSettings, evaluation: EvaluationSettings, *, steps: int, num_inference_steps: int
) -> tuple[Rung, ...]:
    """The rungs of trials of at most `steps` optimiser steps, ascending; the last has `steps` and the whole protocol.

    The steps grow by `reduction_factor` from rung to rung, as the milestones of ASHA do. A short trial has fewer rungs.

    Args:
        num_inference_steps: The base's own sampling steps, where `evaluation` names none.
    """
    first = -(-steps // search.reduction_factor ** (search.rungs - 1))
    at = []
    while first < steps:
        at.append(first)
        first *= search.reduction_factor
    whole = _on_seeds(evaluation, _TRIAL_SEEDS, num_inference_steps)
    return (
        *(Rung(step, _reduced(whole, search, index / len(at))) for index, step in enumerate(at)),
        Rung(steps, whole),
    )


def rungs_of_trial(of_prompt: Sequence[Rung], steps: int) -> tuple[Rung, ...]:
    """The rungs of one trial of `steps` steps, the last of them at its last step with the whole protocol."""
    return (*(rung for rung in of_prompt if rung.steps < steps), Rung(steps, of_prompt[-1].evaluation))


def confirmation(evaluation: EvaluationSettings, num_inference_steps: int) -> EvaluationSettings:
    """The whole protocol on seeds that no trial uses."""
    return _on_seeds(evaluation, _CONFIRMATION_SEEDS, num_inference_steps)


def _on_seeds(evaluation: EvaluationSettings, offset: int, num_inference_steps: int) -> EvaluationSettings:
    """The protocol on other seeds with fewer guard images, and without hard negatives, which no trial's score uses."""
    return evaluation.model_copy(
        update={
            "seed": (evaluation.seed + offset) % (MAX_SEED + 1),
            "guard_images": min(evaluation.guard_images, _GUARD_IMAGES),
            "hard_negatives": 0,
            "num_inference_steps": evaluation.num_inference_steps or num_inference_steps,
        }
    )


def _reduced(whole: EvaluationSettings, search: SearchSettings, progress: float) -> EvaluationSettings:
    """The protocol of a rung at `progress`, 0 for the first and below 1: fewer images and sampling steps."""
    share = (min(search.first_images, whole.images) / whole.images) ** (1 - progress)
    assert whole.num_inference_steps is not None
    return whole.model_copy(
        update={
            "images": max(2, round(whole.images * share)),
            "guard_images": max(1, round(whole.guard_images * share)),
            "num_inference_steps": max(
                1, round(whole.num_inference_steps * _FEWEST_SAMPLING_STEPS ** (1 - progress))
            ),
        }
    )
