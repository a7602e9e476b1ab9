"""Collects exemplars from an API that speaks OpenAI's `POST /images/generations`.

`command` is `python -m corrector.exemplars generate`. `Collection` asks for images within a `Plan`; the `Journal` in the
folder says what was asked, received and stored, and a killed collection goes on from there.
"""

from corrector.exemplars.generation.collection import Collection
from corrector.exemplars.generation.images_api import ImagesApi
from corrector.exemplars.generation.journal import Journal
from corrector.exemplars.generation.plan import Plan

__all__ = ["Collection", "ImagesApi", "Journal", "Plan"]
