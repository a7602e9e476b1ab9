"""Compares base and corrected model on equally many images from the same seeds, and applies the gate.

`Comparison` says which images the whole protocol has; `Assessment` asks for as many of them as the verdict needs; `score`
measures them and returns the `Scorecard`. All take images as tensors: they load no base and read no image files.
"""

from typing import TYPE_CHECKING

from corrector.lazy_names import lazy_names

if TYPE_CHECKING:
    from corrector.evaluation.assessment import Assessment
    from corrector.evaluation.comparison import Comparison, Row
    from corrector.evaluation.comparison_images import Exemplars
    from corrector.evaluation.feature_memory import FeatureMemory
    from corrector.evaluation.features import FeatureExtractor, default_extractors
    from corrector.evaluation.gate import judge
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
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "assessment": ("Assessment",),
        "comparison": ("Comparison", "Row"),
        "comparison_images": ("Exemplars",),
        "feature_memory": ("FeatureMemory",),
        "features": ("FeatureExtractor", "default_extractors"),
        "gate": ("judge",),
        "scorecard": ("Check", "GateVerdict", "Measurements", "NotRun", "Scorecard"),
        "verdicts": ("ImageJudge",),
    },
)
