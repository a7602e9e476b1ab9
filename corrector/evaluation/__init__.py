"""Compares base and corrected model on equally many images from the same seeds, and applies the gate.

`Comparison` says which images to sample; `score` measures them and returns the `Scorecard`. It takes images as
tensors: it loads no base and reads no image files.
"""

from corrector.evaluation.comparison import Comparison, Row
from corrector.evaluation.false_routes import HardNegativeImages
from corrector.evaluation.features import FeatureExtractor, default_extractors
from corrector.evaluation.gate import judge
from corrector.evaluation.guards import GuardImages
from corrector.evaluation.score import score
from corrector.evaluation.scorecard import Check, GateVerdict, Measurements, NotRun, Scorecard

__all__ = [
    "Check",
    "Comparison",
    "FeatureExtractor",
    "GateVerdict",
    "GuardImages",
    "HardNegativeImages",
    "Measurements",
    "NotRun",
    "Row",
    "Scorecard",
    "default_extractors",
    "judge",
    "score",
]
