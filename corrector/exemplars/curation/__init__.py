"""Curation: a verdict on every image of a set of exemplars, and on the set, before anything trains on it.

`curate_folder` reads a folder; `curate_images` takes images that are decoded already. `Decisions` holds what people decided
about images against the verdicts, by content digest. Names are imported when they are first used, because torch takes seconds
to import and decisions are read without it.
"""

from typing import TYPE_CHECKING

from corrector.exemplars.provenance import Decision
from corrector.lazy_names import lazy_names

if TYPE_CHECKING:
    from corrector.exemplars.curation.curate import curate_folder, curate_images
    from corrector.exemplars.curation.decisions import Decisions
    from corrector.exemplars.curation.dropping import without_dropped
    from corrector.exemplars.curation.verdicts import REVIEW, Curation, Grade, ImageVerdict, Reason

__all__ = [
    "REVIEW",
    "Curation",
    "Decision",
    "Decisions",
    "Grade",
    "ImageVerdict",
    "Reason",
    "curate_folder",
    "curate_images",
    "without_dropped",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "curate": ("curate_folder", "curate_images"),
        "decisions": ("Decisions",),
        "dropping": ("without_dropped",),
        "verdicts": ("REVIEW", "Curation", "Grade", "ImageVerdict", "Reason"),
    },
)
