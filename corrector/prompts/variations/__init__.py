"""Texts near a prompt, from a lexicon and templates: paraphrases, which mean the same, and hard negatives, which do not.

They train and calibrate the router's classifiers. Evaluation also makes images of hard negatives, to find unwanted changes.
A prompt is split into who, doing what, and where (`prompt_parsing`); words that the lexicon does not have stay as they are.
"""

from corrector.prompts.variations.hard_negatives import Difference, HardNegative, hard_negatives
from corrector.prompts.variations.paraphrases import Split, paraphrases

__all__ = ["Difference", "HardNegative", "Split", "hard_negatives", "paraphrases"]
