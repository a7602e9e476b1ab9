"""A fine-tune whose numbers are no longer finite leaves the pack alone, and its last good checkpoint behind."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from corrector.base import LatentPosterior
from corrector.dreambooth import Engine, FineTune
from corrector.dreambooth.checkpoint import read_state, resume_state, write_state
from corrector.dreambooth.reports import StepReport, exploded
from tests.support.small_tasks import diverging, engine, fine_tune, train

HEALTHY = (
    fine_tune("first", 1, batch_size=2, steps=12),
    fine_tune("third", 3, rank=8, batch_size=2, steps=12, preservation="prior"),
)


def diverging_later(task: FineTune) -> FineTune:
    """``task`` with one exemplar that no number survives; which step draws it follows from the seed."""
    mean = task.posterior.mean.clone()
    mean[-1] *= 1e25
    return replace(task, posterior=LatentPosterior(mean, task.posterior.std))


TAME = fine_tune("wild", 4, batch_size=1, steps=12, preservation="none")
WILD = diverging_later(TAME)


def run(pack: Engine, *tasks: FineTune, folder: Path | None = None) -> dict[str, Any]:
    """The histories and weights of ``tasks`` at their end; every second step saves each into a folder of its name."""
    for task in tasks:
        pack.admit(task)
    for step in range(1, 13):
        pack.step()  # of no effect once all are through
        if folder is not None and step % 2 == 0:
            pack.collect()
            for name in pack.active:
                write_state(pack.state_of(name), folder / name)
                pack.mark_saved(name)
    return {name: (pack.history(name), pack.release(name)) for name in pack.finished}


@pytest.mark.parametrize("report_every", [1, 5])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_neighbours_are_to_the_bit_what_they_are_beside_a_healthy_one(
    report_every: int, checkpointing: bool
) -> None:
    """One that is stopped when the other fails: products of other numbers of rows may be rounded otherwise."""
    options: dict[str, Any] = {"report_every": report_every, "checkpointing": checkpointing}
    beside = engine(3, **options)
    found = run(beside, HEALTHY[0], WILD, HEALTHY[1])
    (failure,) = beside.failures
    healthy = engine(3, **options)
    for task in (HEALTHY[0], TAME, HEALTHY[1]):
        healthy.admit(task)
    for _ in range(-(-failure.step // report_every) * report_every):
        healthy.step()
    healthy.stop("wild")
    expected = run(healthy)
    expected.pop("wild")
    assert found.keys() == expected.keys() == {"first", "third"}
    for name, (history, adapter) in expected.items():
        assert found[name][0] == history
        for path, pair in adapter.weights.items():
            assert all(torch.equal(*both) for both in zip(pair, found[name][1].weights[path], strict=True))


def test_neighbours_are_up_to_rounding_those_of_a_run_without_it() -> None:
    found, expected = run(engine(3), HEALTHY[0], WILD, HEALTHY[1]), run(engine(2), *HEALTHY)
    for name, (history, _) in expected.items():
        losses = [report.loss for report in found[name][0]]
        assert losses == pytest.approx([report.loss for report in history], rel=1e-4)


@pytest.mark.parametrize("report_every", [1, 5])
def test_its_last_good_checkpoint_is_kept_and_the_failure_names_it(tmp_path: Path, report_every: int) -> None:
    pack = engine(3, report_every=report_every)
    run(pack, HEALTHY[0], WILD, folder=tmp_path)
    (failure,) = pack.failures
    assert 3 <= failure.step <= 5  # so that there is something to keep
    assert failure.saved_step == (failure.step - 1) // 2 * 2
    assert re.match(
        rf"the loss became (inf|nan) at step {failure.step} of 12 \(learning rate 0.005\); lower the learning rate "
        rf"or warm up longer; its checkpoint of step {failure.saved_step} is kept",
        failure.reason,
    )
    state = read_state(tmp_path / "wild")
    assert state["run"]["step"] == failure.saved_step == len(state["run"]["history"])
    assert all(state["run"]["optimiser"][key].isfinite().all() for key in ("weights", "mean", "variance"))
    again = engine(1)
    assert resume_state(again, state, tmp_path / "wild") == "wild"
    while not again.failures:
        again.step()
    assert again.failures[0] == failure


def test_nothing_is_written_down_of_one_that_failed_unseen() -> None:
    pack = engine(2, report_every=100)
    pack.admit(diverging(TAME))
    pack.admit(HEALTHY[0])
    pack.step()
    assert pack.failures == []  # it is not known yet
    assert pack.state_of("first")["run"]["step"] == 1
    with pytest.raises(KeyError, match="no fine-tune wild"):
        pack.state_of("wild")
    assert pack.failures[0].saved_step is None and pack.failures[0].reason.endswith("warm up longer")


def test_a_failure_names_no_checkpoint_whose_writing_failed(tmp_path: Path) -> None:
    pack = engine(1)
    pack.admit(WILD)
    pack.step()
    (tmp_path / "full").touch()
    with pytest.raises(OSError, match="full"):
        write_state(pack.state_of("wild"), tmp_path / "full")
    while not pack.failures:
        pack.step()
    (failure,) = pack.failures
    assert failure.saved_step is None and "checkpoint" not in failure.reason


def test_its_slot_serves_the_next() -> None:
    pack = engine(1)
    assert train(pack, diverging(TAME), HEALTHY[0]) == train(engine(1), HEALTHY[0])


@pytest.mark.parametrize(("last", "diverged"), [(0.2, False), (1.5, False), (9.0, True)])
def test_finite_losses_that_rise_tenfold_are_a_divergence(last: float, diverged: bool) -> None:
    losses = [0.5 if step % 2 else 0.1 for step in range(20)] + [last] * 10
    history = [StepReport(step, 30, loss, None, 1.0, 1e-3) for step, loss in enumerate(losses, start=1)]

    reason = exploded(history)

    assert (reason is not None) == diverged
    if reason is not None:
        assert "from 0.3 to 9 by step 30" in reason
    assert exploded(history[:5]) is None
