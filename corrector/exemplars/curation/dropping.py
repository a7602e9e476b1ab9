"""without_dropped: a set of exemplars with people's decisions, without the images that they, or a curation, dropped."""

from __future__ import annotations

from dataclasses import replace

from corrector.errors import UserError
from corrector.exemplars.curation.decisions import Decisions
from corrector.exemplars.exemplar_set import ExemplarSet
from corrector.exemplars.files import printable


def without_dropped(found: ExemplarSet, decisions: Decisions) -> ExemplarSet:
    """The set without dropped images, split anew into halves; sources say what was decided about each image.

    The order in which images are held out stays, so the split of a set of which nothing is dropped stays.

    Raises:
        UserError: Fewer than two images remain.
    """
    ranked = [
        replace(
            each, source=each.source.model_copy(update={"decision": decisions.decisions.get(each.sha256)})
        )
        for each in (*found.held_out, *found.training)
    ]
    rest = [each for each in ranked if each.source.is_used]
    dropped = tuple(each.source for each in ranked if not each.source.is_used)
    if dropped and len(rest) < 2:
        raise UserError(f"exemplars: decisions drop {len(dropped)} of {len(ranked)} images; two must remain")
    held_out = len(rest) // 2 if dropped else len(found.held_out)
    return replace(
        found,
        training=tuple(rest[held_out:]),
        held_out=tuple(rest[:held_out]),
        notes=(*found.notes, *(printable(f"{each.name}: dropped {each.decision}") for each in dropped)),
        dropped=dropped,
    )
