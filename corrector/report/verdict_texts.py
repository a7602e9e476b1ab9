"""The verdict on a correction in words, as the report, the model card and the registry show it."""

from collections.abc import Collection, Sequence

from corrector.evaluation.scorecard import Scorecard
from corrector.evaluation.scorecard_parts import PredictionShift
from corrector.record.correction_record import CorrectionRecord

NOT_JUDGED = "Not judged: it was imported without exemplars, so nothing was scored."


def imported_text(record: CorrectionRecord) -> str:
    """Which file the adapter was imported from; empty where it was trained here."""
    if (origin := record.imported) is None:
        return ""
    left_out = f", {origin['left_out']} left out" if origin.get("left_out") else ""
    return f"imported from {origin['file']} ({origin['dialect']}, alpha {origin['alpha']}{left_out})"


def grade_text(card: Scorecard) -> str:
    """The grade and what it says; empty where the gate did not pass."""
    grade, verdicts = card.verdict.grade, card.verdicts
    if grade is None:
        return ""
    if verdicts is None:
        return f"{grade}: nearer to the exemplars; how many images are right is not known"
    calls = (
        f"{verdicts.judge} calls {verdicts.right_corrected.value:.0%} of {len(verdicts.own.corrected)} images "
        f"right, of the base's {verdicts.right_base.value:.0%}"
    )
    if verdicts.advisory is not None:
        return f"{grade}: nearer to the exemplars; {calls} (advisory: {verdicts.advisory})"
    return f"{grade}: {calls}"


def looks_text(card: Scorecard) -> str:
    """At how many of the prompt's own images drawing stopped, and why; empty where it could not stop."""
    if not card.looks:
        return ""
    last = card.looks[-1]
    drawn = ", ".join(str(look.n) for look in card.looks)
    return f"Looked at {drawn} of at most {last.most} images: {last.decision} at {last.n} ({last.why})."


def guards_not_drawn(record: CorrectionRecord) -> str:
    """Of which guard prompts no image was drawn, and why; empty where images of all were."""
    card, drawn = record.scorecard, {guard.prompt for guard in record.guards}
    if card is None:
        return ""
    if still := _not_moved(card.guard_shifts, drawn):
        return still
    if drawn or not record.entry.get("guard_prompts"):
        return ""
    return f"Guard prompts were not drawn: the prompt's own images were refused at {card.n}."


def negatives_not_drawn(record: CorrectionRecord) -> str:
    """Of which hard negatives no image was drawn, and why; empty where images of all were, or none was wanted."""
    card = record.scorecard
    if card is None:
        return ""
    if card.verdict.passed or record.hard_negatives:
        return _not_moved(card.negative_shifts, {negative.prompt for negative in record.hard_negatives})
    if not (card.settings.stop_early and card.settings.hard_negatives):
        return ""
    return "Hard negatives were not drawn: they gate nothing, and only what passes is tried on them."


def _not_moved(shifts: Sequence[PredictionShift], drawn: Collection[str]) -> str:
    """Of which prompts no image was drawn because predictions for them did not move; empty for none."""
    still = [shift for shift in shifts if shift.prompt not in drawn]
    if not still:
        return ""
    names = ", ".join(f'"{shift.prompt}"' for shift in still)
    return (
        f"No images were drawn of {names}: the adapter moves the first predictions for them by at most "
        f"{max(shift.largest for shift in still):.0%} of the way to the corrected prompt's."
    )
