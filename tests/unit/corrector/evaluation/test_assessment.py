"""No more images are drawn than the verdict needs: its own first, guard images of what passed, negatives of what held."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from corrector.evaluation import Assessment, FeatureMemory
from corrector.evaluation.scorecard_parts import PredictionShift
from corrector.prompts import GateThresholds
from tests.unit.corrector.evaluation.compared import (
    EXEMPLARS,
    GUARD_PROMPTS,
    NEGATIVES,
    PROMPT,
    SETTINGS,
    THRESHOLDS,
    Draws,
    base,
    compared,
    drawn,
    fixed,
    fixed_in,
    judged_memory,
    leaking,
    memory,
    refused,
    scored,
)

pytestmark = pytest.mark.xdist_group("scene features")

WHOLE = compared(32, negatives=NEGATIVES)


def assessment(
    images: int = 32,
    *,
    seen_by: FeatureMemory | None = None,
    thresholds: GateThresholds = THRESHOLDS,
    **settings: Any,
) -> Assessment:
    return Assessment(
        compared(images, negatives=NEGATIVES),
        EXEMPLARS,
        seen_by or memory(),
        SETTINGS.model_copy(update={"images": images, **settings}),
        thresholds,
    )


def run(found: Assessment, corrected: Draws, shift: float = 1.0) -> list[int]:
    """Draw what is wanted until nothing is; the pairs of each round. Predictions for guard prompts move by `shift`."""
    rounds = []
    while found.wanted or found.unscreened:
        if found.unscreened:
            found.screen(
                [PredictionShift(prompt=g.prompt, n=4, largest=shift, mean=shift) for g in found.unscreened]
            )
            continue
        rows = found.wanted
        rounds.append(len(rows))
        found.add(drawn(rows, base), drawn(rows, corrected))
    return rounds


def other_anomalies(text: str, seed: int) -> Tensor:
    """The corrected model draws the failing prompt as broken as the base, from other noise."""
    return base(text, seed + 40 if text == PROMPT else seed)


def decisions(found: Assessment) -> list[tuple[int, str]]:
    return [(look.n, look.decision) for look in found.looks]


def test_an_adapter_that_fixes_nothing_is_refused_at_the_first_look_and_no_guard_image_is_drawn() -> None:
    found = assessment()

    assert run(found, other_anomalies) == [8]
    assert decisions(found) == [(8, "refused")]
    assert "nearer to the held-out exemplars" in found.looks[0].why
    assert (found.drawn.guards, found.drawn.negatives) == ((), ())


def test_only_guard_prompts_whose_predictions_moved_are_drawn() -> None:
    found = assessment()
    for _ in range(2):
        found.add(drawn(found.wanted, base), drawn(found.wanted, fixed))
    assert found.unscreened == (*WHOLE.guards, *WHOLE.negatives)
    assert found.wanted == []

    found.screen(
        [
            PredictionShift(prompt=each.prompt, n=4, largest=largest, mean=0)
            for each, largest in zip(found.unscreened, (0.05, 0.11, 0.1, 0.09, 0.2), strict=True)
        ]
    )

    assert found.unscreened == ()
    assert {text for text, _ in found.wanted} == {GUARD_PROMPTS[1]}
    found.add(drawn(found.wanted, base), drawn(found.wanted, fixed))
    assert {text for text, _ in found.wanted} == {NEGATIVES[1].prompt}


def test_a_true_fix_passes_at_the_fewest_images_then_its_guards_then_its_negatives() -> None:
    found = assessment()

    assert run(found, fixed) == [8, 8, 3 * 4, 2 * 4]
    assert decisions(found) == [(8, "more"), (16, "passed")]
    assert found.drawn == WHOLE.part(
        16, guards=GUARD_PROMPTS, negatives=[negative.prompt for negative in NEGATIVES]
    )
    assert torch.equal(found.before, drawn(found.drawn.rows, base))
    assert torch.equal(found.after, drawn(found.drawn.rows, fixed))


def test_where_no_prediction_moved_no_image_of_a_guard_or_hard_negative_is_drawn() -> None:
    found = assessment()

    assert run(found, fixed, shift=0.01) == [8, 8]
    assert (found.drawn.guards, found.drawn.negatives) == ((), ())
    card = scored(
        found.drawn,
        fixed,
        looks=found.looks,
        guard_shifts=found.guard_shifts,
        negative_shifts=found.negative_shifts,
    )
    assert [figure.corrected for figure in card.figures() if "shift of a" in figure.name] == [0.01, 0.01]
    assert refused(card) == []
    assert card.n == 16


def test_with_a_judge_all_guard_images_are_drawn_whatever_predictions_would_say(tmp_path: Path) -> None:
    run(assessment(), fixed)
    found = assessment(seen_by=judged_memory(tmp_path))

    assert run(found, fixed, shift=0.01) == [8, 8, 3 * 4, 2 * 4]
    assert found.guard_shifts == ()


def test_a_lost_guard_image_ends_it_before_the_negatives() -> None:
    found = assessment()

    assert run(found, leaking(GUARD_PROMPTS[1], [17])) == [8, 8, 3 * 4]
    assert found.drawn.negatives == ()
    tolerant = assessment(thresholds=GateThresholds(max_lost_guard_images=1))
    assert run(tolerant, leaking(GUARD_PROMPTS[1], [17])) == [8, 8, 3 * 4, 2 * 4]


def test_half_a_fix_is_looked_at_until_its_images_are_used_up() -> None:
    found = assessment(16)

    assert run(found, fixed_in(range(0, 16, 2)))[:2] == [8, 8]
    assert [decision for _, decision in decisions(found)] == ["more", "passed"]


def test_without_stopping_early_everything_is_drawn_at_once_and_looked_at_once() -> None:
    for corrected, decision in ((fixed, "passed"), (base, "refused")):
        found = assessment(16, stop_early=False)

        assert run(found, corrected) == [16 + 3 * 4 + 2 * 4]
        assert decisions(found) == [(16, decision)]
        assert found.looks[0].share == 1
        assert found.drawn == compared(16, negatives=NEGATIVES)


def test_images_that_are_not_finite_are_refused_at_once() -> None:
    def diverged(text: str, seed: int) -> Tensor:
        return fixed(text, seed) if seed != 2 else torch.full((3, 64, 64), torch.nan)

    found = assessment()

    assert run(found, diverged) == [8]
    assert (found.looks[0].decision, "sane images" in found.looks[0].why) == ("refused", True)


def test_guard_images_that_are_not_finite_end_it() -> None:
    def diverged(text: str, seed: int) -> Tensor:
        return fixed(text, seed) if text == PROMPT else torch.full((3, 64, 64), torch.nan)

    assert run(assessment(), diverged) == [8, 8, 3 * 4]


def test_no_image_is_extracted_twice() -> None:
    colours = Counting()
    found = assessment(seen_by=FeatureMemory([colours]), thresholds=GateThresholds(min_extractors=1))

    run(found, fixed)

    own, guards, exemplars, restyled = 2 * 16, 3 * 4, 16, 8 + 16  # each look has a filter of its own
    assert colours.seen == own + guards + exemplars + restyled, "guard images of both arms are the same"


class Counting:
    """Mean colours of sixteen parts; `seen` counts the images."""

    name = "colours"
    dimensions = 48

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
