"""Says of each image whether it is a right picture of its prompt.

`Detector` is the interface; a vision-language model, the distance to exemplars, an ONNX file and every installed
`corrector.evaluation.ImageJudge` implement it. `choose_detectors` makes them by name.
"""

from typing import TYPE_CHECKING

from corrector.lazy_names import lazy_names

if TYPE_CHECKING:
    from corrector.detectors.choice import NotRun, choose_detectors
    from corrector.detectors.detector import Detector, Finding

__all__ = ["Detector", "Finding", "NotRun", "choose_detectors"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "choice": ("NotRun", "choose_detectors"),
        "detector": ("Detector", "Finding"),
    },
)
