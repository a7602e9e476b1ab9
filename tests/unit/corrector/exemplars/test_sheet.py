"""Contact sheets."""

import numpy as np
import pytest
import torch
from PIL import Image

from corrector.exemplars import contact_sheet, to_tensor
from corrector.exemplars.sheet import PADDING
from tests.support.pictures import drawn


def darkest(sheet: Image.Image) -> int:
    return int(np.asarray(sheet.convert("L")).min())


def test_pictures_stand_in_rows_with_their_pixels() -> None:
    images = torch.stack([to_tensor(drawn(64, 64, number)) for number in range(5)])
    sheet = contact_sheet(images, columns=3)
    assert sheet.size == (3 * (64 + PADDING) + PADDING, 2 * (64 + PADDING) + PADDING)
    for number in range(5):
        left, top = PADDING + number % 3 * (64 + PADDING), PADDING + number // 3 * (64 + PADDING)
        assert sheet.crop((left, top, left + 64, top + 64)).tobytes() == drawn(64, 64, number).tobytes()


def test_scale_repeats_pixels() -> None:
    sheet = contact_sheet([drawn(8, 8)], columns=4, scale=3)
    assert sheet.size == (24 + 2 * PADDING, 24 + 2 * PADDING)
    enlarged = drawn(8, 8).resize((24, 24), Image.Resampling.NEAREST)
    assert sheet.crop((PADDING, PADDING, PADDING + 24, PADDING + 24)).tobytes() == enlarged.tobytes()


def test_smaller_pictures_are_centred_in_their_cell() -> None:
    sheet = contact_sheet([drawn(64, 64), drawn(32, 16)], columns=2)
    left, top = PADDING + 64 + PADDING + 16, PADDING + 24
    assert sheet.crop((left, top, left + 32, top + 16)).tobytes() == drawn(32, 16).tobytes()


def test_labels_are_written_under_their_own_picture_only() -> None:
    blank = torch.ones(3, 128, 128)
    sheet = contact_sheet([blank, blank], columns=2, labels=["", "a person lying on the grass"])
    left, right = (sheet.crop((x, 0, x + 128, sheet.height)) for x in (PADDING, 2 * PADDING + 128))
    assert darkest(left) > 200
    assert darkest(right) < 100


@pytest.mark.parametrize("label", ["a-name-without-spaces-" * 8, "many words " * 30, "one\ntwo\nthree\nfour"])
def test_long_labels_stay_in_their_column(label: str) -> None:
    blank = torch.ones(3, 96, 96)
    sheet = contact_sheet([blank, blank], columns=2, labels=[label, ""])
    outside = sheet.crop((PADDING + 96 + 2, 0, sheet.width, sheet.height))
    assert darkest(outside) > 200
    assert sheet.height < 96 + 3 * 20 + 2 * PADDING + 4


@pytest.mark.parametrize(
    ("images", "columns", "labels", "scale"),
    [([], 1, None, 1), ([drawn()], 0, None, 1), ([drawn()], 1, None, 0), ([drawn()], 1, ["a", "b"], 1)],
)
def test_impossible_sheets_are_refused(
    images: list[Image.Image], columns: int, labels: list[str] | None, scale: int
) -> None:
    with pytest.raises(ValueError, match=r"expected at least one of each|labels for"):
        contact_sheet(images, columns=columns, labels=labels, scale=scale)
