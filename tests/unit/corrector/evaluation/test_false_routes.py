"""The harm of a false route is counted in images, with an interval, and gates nothing."""

import json
from functools import cache

import pytest
import torch
from rich.console import Console
from torch import Tensor

from corrector.evaluation import HardNegativeImages, Scorecard, score
from corrector.evaluation.false_routes import paired_drop
from corrector.evaluation.scorecard import FalseRouteScore
from corrector.prompts import EvaluationSettings
from corrector.prompts.variations import Difference
from tests.support.scenes import FAILING, pictures
from tests.unit.corrector.evaluation.test_score import few
from tests.world.scenes import Scene

STANDING, DOG = Scene("person", "standing", "grass"), Scene("dog", "lying", "grass")


def pairs(both: int, lost: int, won: int, neither: int) -> tuple[Tensor, Tensor]:
    """Whether each image is recognised before and after, from the four counts."""
    before = [1.0] * (both + lost) + [0.0] * (won + neither)
    after = [1.0] * both + [0.0] * lost + [1.0] * won + [0.0] * neither
    return torch.tensor(before), torch.tensor(after)


def negatives(lost: int) -> list[HardNegativeImages]:
    """Two hard negatives of four images; of each, the first `lost` turn into the corrected prompt."""
    turned = pictures(FAILING, range(70, 70 + lost)) if lost else torch.empty(0, 3, 64, 64)
    drawn: tuple[tuple[Scene, Difference], ...] = ((STANDING, "action"), (DOG, "noun"))
    return [
        HardNegativeImages(
            prompt=f"a {scene.subject} {scene.pose} on the {scene.place}",
            base=pictures(scene, range(4)),
            corrected=torch.cat([turned, pictures(scene, range(4))[lost:]]),
            difference=difference,
        )
        for scene, difference in drawn
    ]


@cache
def scored(lost: int | None) -> Scorecard:
    """The correction that works, with the hard negatives of `negatives`, or with none."""
    return score(**few(negatives=[] if lost is None else negatives(lost)))


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
    assert paired_drop(*pairs(*counts)) == pytest.approx(bounds, abs=5e-4)


def test_no_image_lost_among_few_is_no_certainty() -> None:
    low, high = paired_drop(*pairs(16, 0, 0, 0))

    assert low == pytest.approx(-high)
    assert 0.15 < high < 0.25


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(500):
        before = torch.rand(16, generator=generator) < 0.9
        after = before & (torch.rand(16, generator=generator) < 0.7)
        low, high = paired_drop(before.double(), after.double())
        held += low <= 0.9 - 0.63 <= high

    assert held >= 465


def test_an_adapter_that_changes_nothing_does_no_harm() -> None:
    harm = measured(scored(0))

    assert harm.n == 8
    assert harm.kept_base == harm.kept_corrected == 1
    assert harm.drop.value == 0
    assert harm.change == 0
    assert [negative.drop for negative in harm.negatives] == [0, 0]


@pytest.mark.parametrize("lost", [1, 4])
def test_images_that_turn_into_the_corrected_prompt_are_counted(lost: int) -> None:
    harm = measured(scored(lost))

    assert harm.drop.value == pytest.approx(lost / 4)
    assert harm.drop.low < harm.drop.value < harm.drop.high or harm.drop.value == harm.drop.high == 1
    assert [(n.prompt, n.difference, n.n) for n in harm.negatives] == [
        ("a person standing on the grass", "action", 4),
        ("a dog lying on the grass", "noun", 4),
    ]
    assert [n.drop for n in harm.negatives] == [pytest.approx(lost / 4)] * 2
    assert f"recognised 100% before, {1 - lost / 4:.0%} after" in harm.negatives[0].note


def test_it_gates_nothing_and_changes_no_other_figure() -> None:
    harmed, without = scored(4), scored(None)

    assert harmed.verdict == without.verdict
    for field in ("distances", "diversity", "nearest_training", "guards", "safety", "sanity"):
        assert getattr(harmed, field) == getattr(without, field), field


def test_the_table_shows_it_with_its_interval_and_each_hard_negative() -> None:
    card = scored(1)
    console = Console(width=300, force_terminal=False)
    with console.capture() as captured:
        console.print(card.table())
    lines = [line for line in captured.get().splitlines() if "false route" in line]

    assert len(lines) == 3
    assert str(measured(card).drop) in lines[0] and "gates nothing" in lines[0]
    assert "a dog lying on the grass" in lines[2] and "recognised 100% before, 75% after" in lines[2]


def test_what_was_not_drawn_or_is_not_finite_is_not_measured_and_says_why() -> None:
    broken = negatives(0)
    broken[0].corrected[0, 0, 0, 0] = torch.nan
    for drawn, settings, reason in (
        ([], EvaluationSettings(images=2), "no hard negative was drawn"),
        ([], EvaluationSettings(images=2, hard_negatives=0), "hard_negatives is 0"),
        (broken, EvaluationSettings(images=2), "some images hold values that are not finite"),
    ):
        card = score(**few(2, negatives=drawn, settings=settings))

        assert card.false_route is None
        assert {missing.reason for missing in card.not_run if missing.name == "false routes"} == {reason}


def test_a_scorecard_survives_json_and_one_of_an_earlier_version_is_read() -> None:
    card = scored(1)
    assert Scorecard.model_validate_json(card.model_dump_json()) == card

    earlier = json.loads(card.model_dump_json())
    del earlier["false_route"]
    for key in ("hard_negatives", "hard_negative_images"):
        del earlier["settings"][key]
    read = Scorecard.model_validate(earlier)
    assert read.false_route is None
    assert read.verdict == card.verdict
