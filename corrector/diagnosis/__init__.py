"""Finds which prompts a base fails at: near-identical prompts in groups, images in blocks until the failure rate is clear.

`near_identical` groups prompts, `SequentialTest` says when a failure rate is clear, `PromptDiagnosis` asks for images and
collects what detectors say of them. Nothing here draws.
"""

from corrector.diagnosis.failure_rate import SequentialTest, Verdict
from corrector.diagnosis.grouping import near_identical
from corrector.diagnosis.prompt_diagnosis import PromptDiagnosis, ranked

__all__ = ["PromptDiagnosis", "SequentialTest", "Verdict", "near_identical", "ranked"]
