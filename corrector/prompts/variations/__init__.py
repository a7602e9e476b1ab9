"""Texts near a prompt, from a lexicon and templates: paraphrases, which mean the same, and hard negatives, which do not.

The router's classifier is fitted on some (tests/benchmarks/router_training.py), and a reviewer sees some (serving/preview.py).
Evaluation makes images of hard negatives, to find unwanted changes.
A prompt is split into who, doing what, and where (`prompt_parsing`); words that the lexicon does not have stay as they are.
"""

from corrector.prompts.variations.hard_negatives import Difference, HardNegative, hard_negatives
from corrector.prompts.variations.paraphrases import paraphrases

__all__ = ["Difference", "HardNegative", "hard_negatives", "paraphrases"]
