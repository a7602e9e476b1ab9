"""The queue hands every prompt to exactly one lane at a time and loses none."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from corrector.prompts import FailingPrompt, HyperParameters
from jobs.inputs.prompt_task import PromptTask
from jobs.inputs.run_folder import PromptFolder
from jobs.lanes.queue import Progress, PromptQueue


def item(name: str, *, priority: int = 0, rank: int = 4, steps: int = 300) -> PromptTask:
    entry = FailingPrompt(
        name=name,
        prompt=f"{name} lying on the grass",
        exemplars="exemplars",
        priority=priority,
        hyperparameters=HyperParameters(rank=rank, steps=steps, preservation="none"),
    )
    return PromptTask(f"work-{name}", entry, "key", PromptFolder(Path("/runs") / name))


def names(items: list[PromptTask]) -> list[str]:
    return [each.entry.name for each in items]


def test_higher_priority_goes_first_and_equal_priority_in_the_batch_order() -> None:
    queue = PromptQueue([item("a"), item("b", priority=5), item("c"), item("d", priority=5)])
    assert names(queue.claim("lane", 3, max_rank=8)) == ["b", "d", "a"]
    assert names(queue.claim("lane", 3, max_rank=8)) == ["c"]


def test_of_equal_priority_the_longest_goes_first() -> None:
    queue = PromptQueue([item("a"), item("b", steps=375), item("c", priority=1, steps=50)])
    assert names(queue.claim("lane", 3, max_rank=8)) == ["c", "b", "a"]


def test_a_rank_above_the_lanes_stays_for_a_lane_that_can_hold_it() -> None:
    queue = PromptQueue([item("wide", rank=64), item("narrow", rank=4)])
    assert names(queue.claim("small", 2, max_rank=8)) == ["narrow"]
    assert names(queue.claim("large", 2, max_rank=64)) == ["wide"]


def test_a_lane_that_starts_again_gives_back_what_it_held() -> None:
    queue = PromptQueue([item("a"), item("b")])
    queue.claim("one", 1, max_rank=8)
    queue.claim("two", 1, max_rank=8)
    queue.process_lost("one", "killed")
    queue.return_leases("one", "its process ended")  # by the one that starts again
    assert (queue.waiting(), queue.losses()) == (1, 1)
    assert names(queue.claim("three", 2, max_rank=8)) == ["a"]


def test_a_prompt_that_kills_its_lane_again_and_again_is_failed_with_the_reason() -> None:
    queue = PromptQueue([item("a")], max_deaths=2)
    queue.claim("lane", 1, max_rank=8)
    assert queue.return_leases("lane", "out of memory") == []
    queue.claim("lane", 1, max_rank=8)
    assert queue.return_leases("lane", "out of memory") == ["a"]
    (progress,) = queue.snapshot()
    assert progress.state == "failed"
    assert "out of memory" in progress.detail
    assert queue.waiting() == 0


def test_a_report_from_a_lane_that_lost_its_lease_changes_nothing() -> None:
    queue = PromptQueue([item("a")])
    queue.claim("one", 1, max_rank=8)
    queue.return_leases("one", "killed")
    queue.claim("two", 1, max_rank=8)
    queue.report("one", [Progress("work-a", "failed", detail="late")])
    assert queue.snapshot()[0].state == "training"


def test_after_stop_nothing_is_handed_out_and_lanes_are_told() -> None:
    queue = PromptQueue([item("a"), item("b")])
    queue.claim("lane", 1, max_rank=8)
    assert queue.report("lane", []) is False
    queue.stop()
    assert queue.report("lane", []) is True
    assert queue.claim("lane", 1, max_rank=8) == []


def test_a_lane_on_a_node_that_leaves_stops_and_its_prompts_go_to_others_without_a_death() -> None:
    queue = PromptQueue([item("a"), item("b")], max_deaths=1)
    queue.place("leaving", "spot")
    queue.place("staying", "other")
    queue.claim("leaving", 1, max_rank=8)
    queue.leave({"spot"})
    assert queue.report("staying", []) is False
    assert queue.report("leaving", [Progress("work-a", "training", step=3, steps=9)]) is True
    assert queue.claim("leaving", 1, max_rank=8) == []
    queue.release("leaving")
    assert queue.snapshot()[0] == Progress("work-a", "waiting", step=3, steps=9)
    assert names(queue.claim("staying", 2, max_rank=8)) == ["a", "b"]


@given(
    st.lists(st.sampled_from(["claim-0", "claim-1", "finish-0", "finish-1", "die-0", "die-1"]), max_size=60)
)
def test_every_prompt_is_always_waiting_leased_to_one_lane_or_settled(events: list[str]) -> None:
    items = [item(str(index)) for index in range(5)]
    queue = PromptQueue(items, max_deaths=100)
    leased: dict[str, list[PromptTask]] = {"0": [], "1": []}
    finished: list[str] = []
    for event in events:
        action, lane = event.split("-")
        if action == "claim":
            leased[lane] += queue.claim(lane, 2, max_rank=8)
        elif action == "die":
            queue.return_leases(lane, "killed")
            leased[lane] = []
        elif leased[lane]:
            done = leased[lane].pop()
            queue.report(lane, [Progress(done.work_id, "sampled")])
            finished.append(done.work_id)
        held = [each.work_id for lane_items in leased.values() for each in lane_items]
        assert len(set(held + finished)) == len(held + finished)
        assert queue.waiting() == len(items) - len(held) - len(finished)
