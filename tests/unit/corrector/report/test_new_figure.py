"""A new figure of the scorecard appears wherever figures are shown, without a change there."""

from pathlib import Path

from corrector.evaluation.scorecard import Scorecard
from corrector.evaluation.scorecard_figures import Figure
from corrector.report import write_report
from corrector.report.comparison import ComparedVersion, compare_records
from corrector.report.model_card import model_card
from tests.support.records import write_record
from tests.world.scenes import Scene


class WithSharpness(Scorecard):
    """A scorecard with one more figure."""

    def figures(self) -> list[Figure]:
        return [*super().figures(), Figure("sharpness", 0.25, 0.75, n=self.n, better="higher")]


def test_a_new_figure_is_in_the_report_the_card_the_comparison_and_the_metrics(tmp_path: Path) -> None:
    record = write_record(tmp_path / "r", Scene("dog", "sitting", "beach"), pairs=2, guard_images=1)
    assert record.scorecard is not None
    record = record.model_copy(update={"scorecard": WithSharpness(**dict(record.scorecard))})

    page = write_report([(tmp_path / "r", record)], tmp_path / "report.html", title="New", job={}).read_text()
    rows = compare_records(ComparedVersion("one", record), ComparedVersion("other", record))

    assert "sharpness <span" in page
    assert "| sharpness | 0.25 | 0.75 | \\+0.5 | 2 |" in model_card(record, "dog")
    assert {row.what: row.one for row in rows}["sharpness"] == "0.25 → 0.75; +0.5 (n = 2)"
    assert isinstance(record.scorecard, WithSharpness)
    assert record.scorecard.metrics["sharpness_corrected"] == 0.75
