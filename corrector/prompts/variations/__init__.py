"""Texts near a prompt, from a lexicon and templates: paraphrases, which mean the same, and hard negatives, which do not.

They train and calibrate what must tell the two apart, and are drawn to see what a correction changes that it should not.
A prompt is split into who, doing what, and where (`reading`); words that the lexicon does not have stay as they are.
"""

from corrector.prompts.variations.hard_negatives import Difference, HardNegative, hard_negatives
from corrector.prompts.variations.paraphrases import Split, paraphrases

__all__ = ["Difference", "HardNegative", "Split", "hard_negatives", "paraphrases"]
