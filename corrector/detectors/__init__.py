"""Says of each image whether it is a right picture of its prompt.

`Detector` is the interface; a vision-language model, the distance to exemplars, an ONNX file and every installed
`corrector.evaluation.ImageJudge` implement it. `choose_detectors` makes them by name.
"""

from corrector.detectors.choice import NotRun, choose_detectors
from corrector.detectors.detector import Detector, Finding

__all__ = ["Detector", "Finding", "NotRun", "choose_detectors"]
