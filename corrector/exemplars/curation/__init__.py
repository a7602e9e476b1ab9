"""Curation: a verdict on every image of a set of exemplars, and on the set, before anything trains on it.

`curate_folder` reads a folder; `curate_images` takes images that are decoded already. `Decisions` holds what people decided
about images against the verdicts, by content digest.
"""

from corrector.exemplars.curation.curate import curate_folder, curate_images
from corrector.exemplars.curation.decisions import Decisions
from corrector.exemplars.curation.dropping import without_dropped
from corrector.exemplars.curation.verdicts import REVIEW, Curation, Grade, ImageVerdict, Reason
from corrector.exemplars.provenance import Decision

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
