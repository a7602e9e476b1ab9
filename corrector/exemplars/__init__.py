"""Exemplars: good images of a prompt, for training a fine-tune and for measuring it.

`load_exemplars` reads a folder of image files. It returns decoded pictures of equal size without duplicates, split
into training and held-out, and notes on the files that were left out.
"""

from corrector.exemplars.exemplar_set import Exemplar, ExemplarSet, file_digests, load_exemplars
from corrector.exemplars.files import Limits
from corrector.exemplars.fit import fit, to_image, to_tensor
from corrector.exemplars.sheet import contact_sheet

__all__ = [
    "Exemplar",
    "ExemplarSet",
    "Limits",
    "contact_sheet",
    "file_digests",
    "fit",
    "load_exemplars",
    "to_image",
    "to_tensor",
]
