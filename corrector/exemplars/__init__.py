"""Exemplars: the good images that a fine-tune learns from and is measured against.

A folder of files from anywhere goes in; decoded, de-duplicated, equally sized pictures come out, split into
training and held-out, with a note for everything that was left out and why.
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
