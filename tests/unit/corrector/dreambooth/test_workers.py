"""Data-parallel workers: two processes against one."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing

from corrector.dreambooth import Engine
from corrector.dreambooth.workers import Workers
from tests.support.small_tasks import diverging, engine, fine_tune

TASKS = (
    fine_tune("guard", 1, rank=4, batch_size=3, steps=2),
    fine_tune("prior", 2, rank=8, batch_size=1, steps=3, preservation="prior"),
    diverging(fine_tune("wild", 3, steps=3)),
    # SingleWorker after the others' end, with one row a step: one of two workers has none.
    fine_tune("small images", 4, size=4, batch_size=1, preservation="none", steps=5),
)


def run(pack: Engine) -> dict[str, Any]:
    for task in TASKS:
        pack.admit(task)
    while pack.active:
        pack.step()
    losses = {
        name: [(report.loss, report.preservation_loss or 0.0, report.grad_norm) for report in pack.history(name)]
        for name in pack.finished
    }  # fmt: skip
    return {
        "weights": pack.bank.storage.clone(),
        "losses": losses,
        "failures": [(failure.name, failure.step) for failure in pack.failures],
    }


def work(rank: int, size: int, folder: str) -> dict[str, Any]:
    """What one of `size` workers ends with."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=240),
    )
    try:
        return run(engine(4, workers=Workers(rank, size), report_every=2))
    finally:
        torch.distributed.destroy_process_group()


def second_worker(_: int, folder: str) -> None:
    torch.save(work(1, 2, folder), Path(folder) / "1.pt")


def test_two_workers_train_as_one_and_hold_the_same_weights_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    other = torch.multiprocessing.spawn(second_worker, args=(str(tmp_path),), join=False)
    assert other is not None
    alone = run(engine(4, report_every=2))  # while the other process imports
    first = work(0, 2, str(tmp_path))
    while not other.join():
        pass
    second = torch.load(tmp_path / "1.pt")
    assert torch.equal(first["weights"], second["weights"])
    assert (first["losses"], first["failures"]) == (second["losses"], second["failures"])
    assert first["failures"] == alone["failures"] == [("wild", 1)]
    torch.testing.assert_close(first["weights"], alone["weights"], rtol=1e-4, atol=1e-5)
    assert first["losses"].keys() == alone["losses"].keys()
    for name, reports in alone["losses"].items():
        for found, expected in zip(first["losses"][name], reports, strict=True):
            assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("costs", [[3, 3, 3, 3], [9, 1, 1, 1, 1, 1, 1, 1, 1, 1], [5], [2, 2, 2, 100]])
def test_shares_follow_one_another_and_leave_nothing_out(
    size: int, costs: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Workers, "__post_init__", lambda self: None)
    shares = [Workers(rank, size).share(costs) for rank in range(size)]
    assert [index for start, stop in shares for index in range(start, stop)] == list(range(len(costs)))
    heaviest = max(sum(costs[start:stop]) for start, stop in shares)
    assert heaviest <= sum(costs) / size + max(costs)


def test_workers_without_their_process_group_are_refused() -> None:
    with pytest.raises(ValueError, match="call init_process_group first"):
        Workers(0, 2)
    with pytest.raises(ValueError, match="worker 2 is not one of 2"):
        Workers(2, 2)
    assert Workers().alone and Workers().share([1, 2]) == (0, 2)
