"""The cost of a finished prompt in result.json and in the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corrector.cost import STAGES, CorrectionCost
from corrector.report.prompts import cost_text
from jobs.correction.results import Results
from jobs.inputs.batch import check_batch
from tests.support.batches import write_batch
from tests.support.records import write_record
from tests.world.scenes import Scene

COST = CorrectionCost(
    encode=6 * 10**13, train=34 * 10**14, own=15 * 10**14, predictions=0, guards=0, negatives=3 * 10**14,
    decode=10**14, score=10**12, images=32,
)  # fmt: skip
SECONDS = {"training": 30.0, "sampling": 6.0, "scoring": 5.0}


@pytest.mark.parametrize(("price", "dollars"), [("3", 0.03), ("", None)])
def test_a_result_has_petaflops_by_stage_and_dollars_where_a_price_is_set(
    tmp_path: Path, small_sd3: Path, monkeypatch: pytest.MonkeyPatch, price: str, dollars: float | None
) -> None:
    monkeypatch.setenv("CORRECTOR_DEVICE_HOUR_DOLLARS", price)
    work = check_batch(write_batch(tmp_path, small_sd3), storage=tmp_path / "runs")
    results = Results(work)
    for task, cost in zip(work.tasks, (COST, None), strict=True):
        folder = task.folder.record.path
        write_record(
            folder, Scene("dog", "sitting", "beach"), pairs=3, guard_images=1, cost=cost, seconds=SECONDS
        )
        results.settle(task, None)
    results.write()
    known, unknown = json.loads(work.run.result.path.read_text())["prompts"]
    assert list(known["petaflops"]) == list(STAGES) and unknown["petaflops"] == {}
    assert known["petaflops"]["train"] == 3.4 and known["petaflops"]["score"] == 0.001
    assert known["dollars"] == unknown["dollars"] == dollars


def test_the_report_has_the_cost_in_one_line(tmp_path: Path) -> None:
    record = write_record(
        tmp_path, Scene("dog", "sitting", "beach"), pairs=3, guard_images=1, cost=COST, seconds=SECONDS
    )
    line = "cost: 3.4 PFLOP training, 1.9 PFLOP drawing 32 images, 61 TFLOP encoding and scoring; 36 s of a device"
    assert cost_text(record, None) == line
    assert cost_text(record, 3.0) == f"{line}; $0.03"
    assert cost_text(record.model_copy(update={"cost": None}), 3.0) == ""
