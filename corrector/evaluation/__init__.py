"""Compares base and corrected model on equally many images from the same seeds, and applies the gate.

`Comparison` says which images the whole protocol has; `Assessment` asks for as many of them as the verdict needs; `score`
measures them and returns the `Scorecard`. All take images as tensors: they load no base and read no image files.
"""

from corrector.evaluation.assessment import Assessment
from corrector.evaluation.comparison import Comparison, Row
from corrector.evaluation.comparison_images import Exemplars
from corrector.evaluation.feature_memory import FeatureMemory
from corrector.evaluation.features import FeatureExtractor, default_extractors
from corrector.evaluation.gate import judge
from corrector.evaluation.score import score
from corrector.evaluation.scorecard import Check, GateVerdict, Measurements, NotRun, Scorecard
from corrector.evaluation.verdicts import ImageJudge

__all__ = [
    "Assessment",
    "Check",
    "Comparison",
    "Exemplars",
    "FeatureExtractor",
    "FeatureMemory",
    "GateVerdict",
    "ImageJudge",
    "Measurements",
    "NotRun",
    "Row",
    "Scorecard",
    "default_extractors",
    "judge",
    "score",
]
