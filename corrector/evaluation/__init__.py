"""Judges a correction: base against corrected with equal n and the same seeds, then the gate.

`evaluation_rows`, `guard_rows` and `negative_seeds` say which images to sample; `score` measures them and returns the
`Scorecard`. Only tensors come in.
"""

from corrector.evaluation.false_routes import HardNegativeImages
from corrector.evaluation.features import FeatureExtractor, default_extractors
from corrector.evaluation.gate import judge
from corrector.evaluation.guards import GuardImages
from corrector.evaluation.protocol import Row, evaluation_rows, grouped_guards, guard_rows, negative_seeds
from corrector.evaluation.score import score
from corrector.evaluation.scorecard import Check, GateVerdict, Measurements, NotRun, Scorecard

__all__ = [
    "Check",
    "FeatureExtractor",
    "GateVerdict",
    "GuardImages",
    "HardNegativeImages",
    "Measurements",
    "NotRun",
    "Row",
    "Scorecard",
    "default_extractors",
    "evaluation_rows",
    "grouped_guards",
    "guard_rows",
    "judge",
    "negative_seeds",
    "score",
]
