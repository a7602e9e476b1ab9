"""What `--plan` says of the cost of a batch."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from corrector.cost import UTILISATION, BaseCost, CorrectionCost, Counts, flops_text
from corrector.prompts import GateThresholds
from jobs.inputs.batch import BatchWork, check_batch
from jobs.lanes.plan_cost import print_costs
from tests.support.batches import write_batch


@pytest.fixture
def work(tmp_path: Path, small_sd3: Path) -> BatchWork:
    return check_batch(write_batch(tmp_path, small_sd3), storage=tmp_path / "runs")


def printed(work: BatchWork, gpu: str | None, price: float | None) -> str:
    console = Console(file=io.StringIO(), width=160)
    print_costs(work, console, gpu=gpu, price=price)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_cost_of_a_prompt_is_printed_by_stage_and_of_the_batch_in_all(work: BatchWork) -> None:
    entry, evaluation = work.tasks[0].entry, work.batch.evaluation
    base = BaseCost.of(work.spec, work.spec.resolution)
    lowest, highest = (
        CorrectionCost.of(base, entry.hyperparameters, evaluation, counts)
        for counts in Counts.bounds(entry, evaluation, GateThresholds(), exemplars=(8, 8))
    )
    text = printed(work, None, 3.0)
    lines = {cells[1].strip(): cells[2:4] for line in text.splitlines() if len(cells := line.split("│")) > 3}
    for name, stage in (("train", "train"), ("sample guard images", "guards"), ("in all", "total")):
        cells = [flops_text(getattr(each, stage)) for each in (lowest, highest)]
        assert [cell.strip() for cell in lines[name]] == cells
    assert f"all 2 prompts: {flops_text(2 * lowest.total)} to {flops_text(2 * highest.total)}\n" in text


def test_hours_and_dollars_need_a_device_whose_rate_is_known(work: BatchWork) -> None:
    priced = printed(work, "NVIDIA H200", 3e9)
    assert "device hours, $" in priced and f"an assumed {UTILISATION:.0%} of 989 TFLOP/s" in priced
    assert "device hours (" in printed(work, "NVIDIA H200", None)
    for unknown in (None, "Some GPU"):
        text = printed(work, unknown, 3.0)
        assert "$" not in text and "hours" not in text
