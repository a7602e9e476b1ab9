"""The harm of a false route is counted in images, with an interval, and gates nothing."""

from functools import cache

import pytest
import torch
from torch import Tensor

from corrector.evaluation import Scorecard
from corrector.evaluation.false_routes import paired_drop
from corrector.evaluation.scorecard_parts import FalseRouteScore
from tests.unit.corrector.evaluation.compared import NEGATIVES, PROMPT, compared, fixed, scored

pytestmark = pytest.mark.xdist_group("scene features")


def pairs(both: int, lost: int, won: int, neither: int) -> tuple[Tensor, Tensor]:
    """Whether each image is recognised before and after, from the four counts."""
    before = [1.0] * (both + lost) + [0.0] * (won + neither)
    after = [1.0] * both + [0.0] * lost + [1.0] * won + [0.0] * neither
    return torch.tensor(before), torch.tensor(after)


@cache
def card(lost: int | None) -> Scorecard:
    """The correction that works; of each hard negative, the first `lost` images turn into the corrected prompt."""
    turned = {(negative.prompt, seed) for negative in NEGATIVES for seed in negative.seeds[: lost or 0]}

    def leaking(text: str, seed: int) -> Tensor:
        return fixed(PROMPT if (text, seed) in turned else text, seed)

    return scored(compared(6, guards=False, negatives=() if lost is None else NEGATIVES), leaking)


def measured(card: Scorecard) -> FalseRouteScore:
    assert card.false_route is not None
    return card.false_route


@pytest.mark.parametrize(
    ("counts", "bounds"),
    [
        ((36, 12, 2, 0), (0.0569, 0.3404)),  # Newcombe 1998, table II
        ((1, 1, 7, 12), (-0.507, -0.026)),  # Fagerland, Lydersen, Laake 2014, airway hyper-responsiveness
    ],
)
def test_the_interval_is_the_published_one(
    counts: tuple[int, int, int, int], bounds: tuple[float, float]
) -> None:
    drop = paired_drop(*pairs(*counts))
    assert (drop.low, drop.high) == pytest.approx(bounds, abs=5e-4)


def test_no_image_lost_among_few_is_no_certainty() -> None:
    drop = paired_drop(*pairs(16, 0, 0, 0))

    assert drop.low == pytest.approx(-drop.high)
    assert 0.15 < drop.high < 0.25


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(500):
        before = torch.rand(16, generator=generator) < 0.9
        after = before & (torch.rand(16, generator=generator) < 0.7)
        drop = paired_drop(before.double(), after.double())
        held += drop.low <= 0.9 - 0.63 <= drop.high

    assert held >= 465


def test_an_adapter_that_changes_nothing_does_no_harm() -> None:
    harm = measured(card(0))

    assert harm.n == 8
    assert harm.kept_base == harm.kept_corrected == 1
    assert harm.drop.value == 0
    assert harm.change == 0
    assert [negative.drop for negative in harm.negatives] == [0, 0]


@pytest.mark.parametrize("lost", [1, 4])
def test_images_that_turn_into_the_corrected_prompt_are_counted(lost: int) -> None:
    harm = measured(card(lost))

    assert harm.drop.value == pytest.approx(lost / 4)
    assert harm.drop.low < harm.drop.value < harm.drop.high or harm.drop.value == harm.drop.high == 1
    assert [(n.prompt, n.difference, n.n) for n in harm.negatives] == [
        ("a person standing on the grass", "action", 4),
        ("a dog lying on the grass", "noun", 4),
    ]
    assert [n.drop for n in harm.negatives] == [pytest.approx(lost / 4)] * 2
    assert f"recognised 100% before, {1 - lost / 4:.0%} after" in harm.negatives[0].note


def test_it_gates_nothing_and_changes_no_other_figure() -> None:
    harmed, without = card(4), card(None)

    assert harmed.verdict == without.verdict
    for field in ("nearer", "distances", "diversity", "nearest_training", "guards", "safety", "sanity"):
        assert getattr(harmed, field) == getattr(without, field), field


def test_the_figures_hold_it_with_its_interval_and_each_hard_negative() -> None:
    figures = [figure for figure in card(1).figures() if figure.name.startswith("false route")]

    assert [figure.name.partition(": ")[2] for figure in figures] == [
        "",
        "a person standing on the grass",
        "a dog lying on the grass",
    ]
    assert figures[0].change == -measured(card(1)).drop
    assert figures[2].arms_text == "100% → 75%"
    assert not any(figure.gates for figure in figures)


def test_hard_negatives_that_were_not_drawn_are_not_measured_and_it_says_why() -> None:
    assert card(None).false_route is None
    (reason,) = [missing.reason for missing in card(None).not_run if missing.name == "false routes"]
    assert reason == "no hard negative was drawn"


def test_hard_negatives_that_are_not_finite_are_a_fault_and_not_a_crash() -> None:
    def diverged(text: str, seed: int) -> Tensor:
        return fixed(text, seed) if text == PROMPT else torch.full((3, 64, 64), torch.nan)

    broken = scored(compared(2, guards=False, negatives=NEGATIVES), diverged)

    assert broken.false_route is None
    assert [missing.reason for missing in broken.not_run] == ["some images hold values that are not finite"]


def test_a_scorecard_with_hard_negatives_survives_json() -> None:
    assert Scorecard.model_validate_json(card(1).model_dump_json()) == card(1)
