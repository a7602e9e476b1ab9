"""without_dropped: a set of exemplars without the images that people, or a curation, dropped."""

from __future__ import annotations

from dataclasses import replace

from corrector.errors import UserError
from corrector.exemplars.curation.decisions import Decisions
from corrector.exemplars.exemplar_set import ExemplarSet
from corrector.exemplars.files import printable


def without_dropped(found: ExemplarSet, decisions: Decisions) -> tuple[ExemplarSet, dict[str, str]]:
    """The set without dropped images, split anew into halves, and why each was dropped, by its digest.

    The order in which images are held out stays, so the split of a set of which nothing is dropped stays.

    Raises:
        UserError: Fewer than two images remain.
    """
    ranked = (*found.held_out, *found.training)
    dropped = [each for each in ranked if each.sha256 in decisions.dropped]
    if not dropped:
        return found, {}
    rest = [each for each in ranked if each.sha256 not in decisions.dropped]
    if len(rest) < 2:
        raise UserError(f"exemplars: decisions drop {len(dropped)} of {len(ranked)} images; two must remain")
    held_out = len(rest) // 2
    reasons = {each.sha256: decisions.dropped[each.sha256] for each in dropped}
    notes = [printable(f"{each.path.name}: dropped {reasons[each.sha256]}") for each in dropped]
    changed = replace(
        found,
        training=tuple(rest[held_out:]),
        held_out=tuple(rest[:held_out]),
        notes=(*found.notes, *notes),
    )
    return changed, reasons
