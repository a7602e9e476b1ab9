"""The shift of a prediction is its way from the base's towards the corrected prompt's."""

import pytest
import torch

from corrector.evaluation.guard_shift import guard_shift


def predictions(seed: int) -> torch.Tensor:
    return torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0, 0.3, 1, -0.5])
def test_it_is_the_share_of_the_way(share: float) -> None:
    base, leaked = predictions(1), predictions(2)

    shifts = guard_shift(base, base + share * (leaked - base), leaked)

    assert shifts.tolist() == pytest.approx([share] * 5, abs=1e-6)


def test_a_move_in_another_direction_is_none() -> None:
    base, leaked = torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
    base[0, 0, 0, 0] = leaked[0, 0, 0, 1] = 1
    aside = base.clone()
    aside[0, 1] += 3

    assert float(guard_shift(base, aside, leaked)) == 0
    assert float(guard_shift(base, base, base)) == 0
