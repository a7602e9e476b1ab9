"""Prints what a batch will cost: FLOPs by stage, and device hours and dollars where the device's rate is known."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from corrector.cost import (
    STAGES,
    UTILISATION,
    BaseCost,
    CorrectionCost,
    Counts,
    dollars,
    flops_text,
    vendor_rate,
)
from corrector.prompt_inputs import side_of
from jobs.inputs.batch import BatchWork
from jobs.inputs.prompt_task import PromptTask

_STAGES = {
    "encode": "encode texts and exemplars",
    "train": "train",
    "own": "sample the prompt's own images",
    "predictions": "compare predictions for near prompts",
    "guards": "sample guard images",
    "negatives": "sample hard negatives",
    "decode": "decode images",
    "score": "score images",
}


def print_costs(work: BatchWork, console: Console, *, gpu: str | None, price: float | None) -> None:
    """Print the lowest and the highest cost of the prompts that are not finished.

    Args:
        gpu: The name of this machine's GPU; None: no seconds are estimated.
        price: Dollars of a device hour.
    """
    bounds = [_bounds(work, task) for task in work.missing]
    lowest, highest = zip(*bounds, strict=True)
    table = Table(header_style="bold", title="FLOPs of a prompt")
    for column in ("stage", "lowest", "highest"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage in STAGES:
        least = min(each.by_stage[stage] for each in lowest)
        most = max(each.by_stage[stage] for each in highest)
        table.add_row(_STAGES[stage], flops_text(least), flops_text(most), end_section=stage == STAGES[-1])
    least, most = min(each.total for each in lowest), max(each.total for each in highest)
    table.add_row("in all", flops_text(least), flops_text(most))
    console.print(table)
    least, most = (sum(each.total for each in side) for side in (lowest, highest))
    text = f"all {len(bounds)} prompts: {flops_text(least)} to {flops_text(most)}"
    rate = None if gpu is None else vendor_rate(gpu, work.spec.compute_dtype("cuda"))
    if rate is not None:
        seconds = [flops / (UTILISATION * rate) for flops in (least, most)]
        text += f", {seconds[0] / 3600:.2g} to {seconds[1] / 3600:.2g} device hours"
        if price is not None:
            text += f", ${dollars(seconds[0], price):,.2f} to ${dollars(seconds[1], price):,.2f}"
        text += (
            f" (at an assumed {UTILISATION:.0%} of {rate / 1e12:.0f} TFLOP/s, the vendor's figure for {gpu})"
        )
    console.print(text, markup=False, highlight=False)
    console.print(
        "(lowest: refused at the first look, the base's images kept from an earlier version; highest: images of all guard "
        "prompts, none kept)",
        style="dim",
    )


def _bounds(work: BatchWork, task: PromptTask) -> tuple[CorrectionCost, CorrectionCost]:
    entry, evaluation, exemplars = task.entry, work.batch.evaluation, work.exemplars[task.entry.name]
    base = BaseCost.of(work.spec, side_of(entry, work.spec))
    lowest, highest = (
        CorrectionCost.of(base, entry.hyperparameters, evaluation, counts)
        for counts in Counts.bounds(
            entry,
            evaluation,
            work.batch.gate,
            exemplars=(len(exemplars.training), len(exemplars.held_out)),
        )
    )
    return lowest, highest
