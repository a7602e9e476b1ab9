"""Verdicts an image: the statistics are the published ones, and a judge tells a fix from half a fix."""

from pathlib import Path

import pytest

from corrector.errors import UserError
from corrector.evaluation.verdicts import mcnemar_p, named_judge, right_share
from tests.unit.corrector.evaluation.compared import (
    CountingJudge,
    compared,
    fixed_in,
    judged_memory,
    refused,
    scored,
)

pytestmark = pytest.mark.xdist_group("scene features")


def pairs(both: int, lost: int, won: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Whether each image is right before and after, from the four counts."""
    before = [True] * (both + lost) + [False] * (won + neither)
    after = [True] * both + [False] * lost + [True] * won + [False] * neither
    return before, after


@pytest.mark.parametrize(
    ("counts", "p"),
    [
        (
            (1, 1, 7, 12),
            0.0703 / 2,
        ),  # Fagerland, Lydersen, Laake 2013: two-sided, of airway hyper-responsiveness
        ((3, 1, 5, 3), 7 / 64),
        ((3, 5, 1, 3), 63 / 64),
        ((0, 0, 8, 0), 1 / 256),
        ((9, 0, 0, 9), 1),
    ],
)
def test_the_p_is_mcnemars_exact_one(counts: tuple[int, int, int, int], p: float) -> None:
    assert mcnemar_p(*pairs(*counts)) == pytest.approx(p, abs=5e-5)


@pytest.mark.parametrize(
    ("right", "n", "bounds"),  # Newcombe 1998, Statistics in Medicine 17, 857-872, table I, method 3
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_the_share_has_wilsons_interval(right: int, n: int, bounds: tuple[float, float]) -> None:
    share = right_share([place < right for place in range(n)])

    assert (share.low, share.high) == pytest.approx(bounds, abs=5e-5)
    assert share.value == right / n


def test_half_a_fix_is_improved_without_a_judge_and_refused_by_one(tmp_path: Path) -> None:
    half = fixed_in(range(0, 16, 2))
    without = scored(compared(), half)
    assert refused(without) == []
    assert without.verdict.grade == "improved"
    assert any("how many images are right" in each for each in without.verdict.unknown)

    card = scored(compared(), half, memory=judged_memory(tmp_path))

    assert refused(card) == ["right images"]
    assert card.verdict.grade is None
    assert card.verdicts is not None
    assert card.verdicts.right_corrected.value == 0.5


def test_a_fix_that_a_judge_confirms_has_the_grade_fixed(tmp_path: Path) -> None:
    scored(compared(), fixed_in(range(16)))
    memory = judged_memory(tmp_path)

    card = scored(compared(), fixed_in(range(16)), memory=memory)

    assert refused(card) == []
    assert (card.verdict.grade, card.verdict.unknown) == ("fixed", ())
    assert card.verdicts is not None
    assert (card.verdicts.right_base.value, card.verdicts.right_corrected.value) == (0, 1)
    assert [guard.corrected for guard in card.verdicts.guards] == [(True,) * 4] * 3
    assert isinstance(memory.judge, CountingJudge)
    assert memory.judge.asked == 32 + 3 * 4, "guard images that did not change are judged once"
    names = [figure.name for figure in card.figures()]
    assert names[0] == "right images, by oracle"
    assert "right images of guard: a person sitting on the grass" in names


def test_a_judge_is_found_by_the_name_under_which_a_package_registers_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_judges-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: some-judges\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[corrector.image_judges]\noracle = tests.oracle.judge:OracleJudge\nbroken = tests.oracle:nothing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    judge = named_judge("oracle")

    assert judge is not None
    assert judge.name == "oracle"
    assert named_judge(None) is None
    with pytest.raises(UserError, match=r'no installed package registers a judge "other"; known: .*oracle'):
        named_judge("other")
    with pytest.raises(UserError, match='"broken" cannot be loaded'):
        named_judge("broken")
