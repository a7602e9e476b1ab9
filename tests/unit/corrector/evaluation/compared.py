"""Comparisons of rendered scenes: the base draws the failing prompt broken, and a corrected model draws what a test says."""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corrector.evaluation import Comparison, Exemplars, FeatureMemory, Row, Scorecard
from corrector.evaluation.comparison import GuardSamples, NegativeSamples
from corrector.evaluation.score import score
from corrector.prompts import EvaluationSettings, GateThresholds
from tests.oracle.judge import SCENES, OracleJudge
from tests.support.scenes import FAILING, GUARDS, pictures
from tests.world.scenes import canonical_prompt

PROMPT = canonical_prompt(FAILING)
GUARD_PROMPTS = tuple(canonical_prompt(scene) for scene in GUARDS)
NEGATIVES = (
    NegativeSamples(prompt="a person standing on the grass", seeds=(16, 17, 18, 19), difference="action"),
    NegativeSamples(prompt="a dog lying on the grass", seeds=(16, 17, 18, 19), difference="noun"),
)
EXEMPLARS = Exemplars(pictures(FAILING, range(16, 24)), pictures(FAILING, range(24, 32)))
SETTINGS = EvaluationSettings(images=16, look_images=8, guard_images=4, bootstrap=50)
THRESHOLDS = GateThresholds()

Draws = Callable[[str, int], Tensor]
"""The image `[3, 64, 64]` of a text and a seed."""


def base(text: str, seed: int) -> Tensor:
    """Broken pictures of the failing prompt, right ones of all other texts."""
    return pictures(SCENES[text], [seed], broken=text == PROMPT)[0]


def fixed(text: str, seed: int) -> Tensor:
    """Right pictures of all texts."""
    return pictures(SCENES[text], [seed])[0]


def fixed_in(seeds: Iterable[int]) -> Draws:
    """Right pictures of the failing prompt for `seeds`, the base's for others."""
    chosen = frozenset(seeds)
    return lambda text, seed: (fixed if seed in chosen else base)(text, seed)


def leaking(text: str, seeds: Iterable[int]) -> Draws:
    """Right pictures, but of `text` for `seeds` pictures of the corrected prompt."""
    turned = {(text, seed) for seed in seeds}
    return lambda *row: fixed(PROMPT if row in turned else row[0], row[1])


def drawn(rows: Sequence[Row], draws: Draws) -> Tensor:
    """Images `[N, 3, 64, 64]` of the rows."""
    return torch.stack([draws(*row) for row in rows])


def compared(
    images: int = 16, *, guards: bool = True, negatives: tuple[NegativeSamples, ...] = ()
) -> Comparison:
    """Pairs of the failing prompt with the seeds from 0, and four of each guard prompt."""
    samples = tuple(GuardSamples(prompt=text, seeds=(16, 17, 18, 19)) for text in GUARD_PROMPTS)
    return Comparison(tuple((PROMPT, seed) for seed in range(images)), samples if guards else (), negatives)


def scored(comparison: Comparison, corrected: Draws, before: Draws = base, **changes: Any) -> Scorecard:
    """The scorecard of what both models draw; `changes` replace the other arguments of `score`."""
    first, second = (drawn(comparison.rows, draws) for draws in (before, corrected))
    given = {"exemplars": EXEMPLARS, "settings": SETTINGS, "thresholds": THRESHOLDS, "memory": memory()}
    return score("lying", comparison, first, second, **{**given, **changes})


def refused(card: Scorecard) -> list[str]:
    """Names of the conditions that do not hold."""
    return [check.name for check in card.verdict.reasons if not check.passed]


@cache
def memory() -> FeatureMemory:
    """The features of all tests of this process: extracting them is what takes time."""
    return FeatureMemory()


class Colours:
    """An extractor: the mean colour of four quadrants; `seen` counts the images."""

    name = "colours"
    dimensions = 12

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


class CountingJudge(OracleJudge):
    """The oracle; `asked` counts the images that it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Sequence[bool]:
        self.asked += len(images)
        return super().__call__(images, prompts)


def judged_memory(folder: Path) -> FeatureMemory:
    """A memory with the oracle as its judge, and with the features that `memory` has."""
    memory().save(folder / "features.safetensors")
    judged = FeatureMemory(judge=CountingJudge())
    judged.load(folder / "features.safetensors")
    return judged
