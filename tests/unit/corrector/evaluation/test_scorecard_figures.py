"""A figure reads as people write it, and MLflow logs it under the names under which earlier runs lie."""

import json
import math
from importlib import resources
from pathlib import Path

import pytest

from corrector.evaluation.scorecard_figures import Figure, Interval, number, signed
from tests.support.records import write_record
from tests.world.scenes import Scene


def test_metrics_keep_the_names_and_values_of_earlier_versions(tmp_path: Path) -> None:
    record = write_record(tmp_path, Scene("person", "lying", "grass"), pairs=8, guard_images=2)
    golden = resources.files("tests.unit.corrector.evaluation") / "golden" / "mlflow_metrics.json"
    assert record.scorecard is not None
    assert record.scorecard.metrics == json.loads(golden.read_text())


def test_the_names_of_figures_are_unique(tmp_path: Path) -> None:
    card = write_record(tmp_path, Scene("person", "lying", "grass"), pairs=2, guard_images=1).scorecard
    assert card is not None
    names = [figure.name for figure in card.figures()]
    assert len(names) == len(set(names))


def test_a_metric_keeps_the_name_of_its_extractor() -> None:
    figure = Figure("kid_My-Model", 2.0, 1.0, n=4)
    assert figure.metrics == {"kid_My-Model_base": 2.0, "kid_My-Model_corrected": 1.0}


@pytest.mark.parametrize(
    ("figure", "texts"),
    [
        (
            Figure("FID", Interval(low=150, value=171.3, high=199.52), 91.3, n=8, n_reference=4),
            ("171.3 [150, 199.5]", "91.3", "−80", "8 against 4 exemplars"),
        ),
        (
            Figure("FID", 171.3, 91.3, n=8, change=Interval(low=-111.4, value=-80, high=1.5)),
            ("171.3", "91.3", "−80 [−111.4, +1.5]", "8"),
        ),
        (
            Figure(
                "recognised", 1.0, 0.5, n=4, unit="share", change=-Interval(low=-0.068, value=0.5, high=0.85)
            ),
            ("100%", "50%", "−50 points [−85, +7]", "4"),
        ),
        (Figure("PSNR", 15.312, 15.1, n=4, unit="dB"), ("15.31 dB", "15.10 dB", "−0.21 dB", "4")),
        (Figure("unsafe", 3, 3, n=4, unit="images"), ("3", "3", "0", "4")),
        (Figure("test", None, None, n=4, p=0.00049975), ("", "", "p = 0.00050", "4")),
    ],
)
def test_a_figure_is_shown_in_its_unit(figure: Figure, texts: tuple[str, ...]) -> None:
    assert (figure.base_text, figure.corrected_text, figure.change_text, figure.n_text) == texts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (None, "–"), (math.nan, "–"), (-63.52, "−63.5"), (331.04, "331"),
        (0.00049975, "0.000500"),
        (12345.6, "12346"), (0.18234, "0.182"), (3.1e-7, "3.10e−7"), (math.inf, "∞"), (0.9999, "1.00"),
    ],
)  # fmt: skip
def test_numbers_read_as_people_write_them(value: float | None, text: str) -> None:
    assert number(value) == text


def test_differences_carry_their_sign() -> None:
    assert [signed(value) for value in (1.5, -1.5, 0.0, -80.0, 1e-7)] == [
        "+1.5",
        "−1.5",
        "0",
        "−80",
        "+1.000e−7",
    ]
