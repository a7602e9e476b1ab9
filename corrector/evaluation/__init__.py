"""How a correction is judged: base against corrected with equal n and the same seeds, then the gate.

`evaluation_rows`, `guard_rows` and `negative_seeds` say what to sample, `score` makes the `Scorecard` of the
images; it knows tensors only.
"""

from corrector.evaluation.false_routes import HardNegativeImages
from corrector.evaluation.features import FeatureExtractor, default_extractors
from corrector.evaluation.gate import judge
from corrector.evaluation.guards import GuardImages
from corrector.evaluation.images import load_image
from corrector.evaluation.plugins import VisionModelFeatures
from corrector.evaluation.protocol import Row, evaluation_rows, grouped_guards, guard_rows, negative_seeds
from corrector.evaluation.score import score
from corrector.evaluation.scorecard import Check, GateVerdict, Interval, Measurements, NotRun, Scorecard

__all__ = [
    "Check",
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
    "evaluation_rows",
    "grouped_guards",
    "guard_rows",
    "judge",
    "load_image",
    "negative_seeds",
    "score",
]
