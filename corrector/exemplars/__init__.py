"""Exemplars: good images of a prompt, for training a fine-tune and for measuring it.

`load_exemplars` reads a folder of image files. It returns decoded pictures of equal size without duplicates, split
into training and held-out, and notes on the files that were left out. `generation` collects images from an API. Names are
imported when they are first used, because torch takes seconds to import and `generation` does without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

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

_MODULES = {
    "exemplar_set": ("Exemplar", "ExemplarSet", "file_digests", "load_exemplars"),
    "files": ("Limits",),
    "fit": ("to_image", "to_tensor"),
    "sheet": ("contact_sheet",),
}


def __getattr__(name: str) -> object:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
