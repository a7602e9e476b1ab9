"""Exemplars: good images of a prompt, for training a fine-tune and for measuring it.

`load_exemplars` reads a folder of image files. It returns decoded pictures of equal size without duplicates, split
into training and held-out, and notes on the files that were left out. `generation` collects images from an API. Names are
imported when they are first used, because torch takes seconds to import and `generation` does without it.
"""

from typing import TYPE_CHECKING

from corrector.lazy_names import lazy_names

if TYPE_CHECKING:
    from corrector.exemplars.exemplar_set import Exemplar, ExemplarSet, file_digests, load_exemplars
    from corrector.exemplars.files import Limits
    from corrector.exemplars.fit import to_image, to_tensor
    from corrector.exemplars.sheet import contact_sheet

__all__ = [
    "Exemplar",
    "ExemplarSet",
    "Limits",
    "contact_sheet",
    "file_digests",
    "load_exemplars",
    "to_image",
    "to_tensor",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "exemplar_set": ("Exemplar", "ExemplarSet", "file_digests", "load_exemplars"),
        "files": ("Limits",),
        "fit": ("to_image", "to_tensor"),
        "sheet": ("contact_sheet",),
    },
)
