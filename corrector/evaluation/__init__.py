"""How a correction is judged: base against corrected with equal n and the same seeds, then the gate.

`Comparison` says what to sample, `score` makes the `Scorecard` of the images; it knows tensors only.
"""

from corrector.evaluation.comparison import Comparison, Row
from corrector.evaluation.false_routes import HardNegativeImages
from corrector.evaluation.features import FeatureExtractor, default_extractors
from corrector.evaluation.gate import judge
from corrector.evaluation.guards import GuardImages
from corrector.evaluation.images import load_image
from corrector.evaluation.plugins import VisionModelFeatures
from corrector.evaluation.score import score
from corrector.evaluation.scorecard import Check, GateVerdict, Interval, Measurements, NotRun, Scorecard

__all__ = [
    "Check",
    "Comparison",
    "FeatureExtractor",
    "GateVerdict",
    "GuardImages",
    "HardNegativeImages",
    "Interval",
    "Measurements",
    "NotRun",
    "Row",
    "Scorecard",
    "VisionModelFeatures",
    "default_extractors",
    "judge",
    "load_image",
    "score",
]
