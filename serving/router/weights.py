"""The weights of the classifier, which `python -m tests.benchmarks.router_training` fits."""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class Weights:
    """What was learned from pairs of prompts, by `python -m tests.benchmarks.router_training`.

    Attributes:
        synonyms: For "action" and "thing", weights of a `Relation`'s features, `cosines`, and 1.
        differences: Weights of `Likeness.features`, and 1.
        examples: Weights of `serving.router.example_classifier.features`, and 1.
        threshold: Smallest logit at which a prompt means the same, for both classifiers.
    """

    synonyms: dict[str, list[float]]
    differences: list[float]
    examples: list[float]
    threshold: float


@lru_cache(maxsize=1)
def classifier_weights() -> Weights:
    return Weights(**json.loads(Path(__file__).with_name("weights.json").read_text()))
