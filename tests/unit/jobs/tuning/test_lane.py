"""A lane of a search scores its trials at their rungs while they train, and loses no more than the way since the last."""

from __future__ import annotations

from pathlib import Path

import pytest

from corrector.base import BaseSpec, resolve_base
from corrector.evaluation.rungs import confirmation
from corrector.record.search_results import RungReport
from jobs.tuning.plan import PromptSearch, SearchGroup
from jobs.tuning.queue import TrialQueue
from tests.support.small_trials import EVALUATION, LocalTrials, plan, run_lane


@pytest.fixture(scope="module")
def spec(small_sd3: Path) -> BaseSpec:
    return resolve_base(str(small_sd3))


def empty_queue(*plans: PromptSearch) -> TrialQueue:
    return TrialQueue({plan.entry.name: SearchGroup(plan.entry.name, (plan,)) for plan in plans})


def opened(plan: PromptSearch, *configurations: dict[str, float]) -> TrialQueue:
    """A queue with these trials, to which none will be added."""
    queue = empty_queue(plan)
    for index, configuration in enumerate(configurations):
        plan.trial_folder(index).begin(dict(configuration))
        queue.open(plan.entry.name, index, dict(configuration))
    queue.complete()
    return queue


def test_trials_of_different_rank_and_rate_are_scored_at_every_rung_on_the_same_seeds(
    tmp_path: Path, spec: BaseSpec
) -> None:
    person = plan(tmp_path, spec)
    queue = opened(person, {"rank": 2}, {"rank": 4, "learning_rate": 5e-3}, {"steps": 5})
    run_lane(tmp_path, spec, LocalTrials(queue))

    reports = [person.trial_folder(index).reports for index in range(3)]
    assert [[report.steps for report in each] for each in reports] == [[4, 8], [4, 8], [4, 5]]
    assert [[report.score.n for report in each] for each in reports] == [[3, 6]] * 3
    assert {report.score.fid_base for each in reports for report in each[:1]} == {
        reports[0][0].score.fid_base
    }
    views = [queue.view([person.trial_id(index)], 0) for index in range(3)]
    assert all(view.ended and view.failure is None for view in views)
    assert reports[0][0].score != reports[1][0].score


def test_a_trial_scores_the_same_whatever_shares_its_lane(tmp_path: Path, spec: BaseSpec) -> None:
    together, alone = plan(tmp_path / "together", spec), plan(tmp_path / "alone", spec)
    run_lane(tmp_path / "together", spec, LocalTrials(opened(together, {"rank": 2}, {"rank": 4})))
    run_lane(tmp_path / "alone", spec, LocalTrials(opened(alone, {"rank": 2})), slots=1)

    for one, other in zip(together.trial_folder(0).reports, alone.trial_folder(0).reports, strict=True):
        assert one.score.score == pytest.approx(other.score.score, rel=1e-3)


def test_a_killed_lane_repeats_no_rung(tmp_path: Path, spec: BaseSpec) -> None:
    undisturbed = plan(tmp_path / "a", spec)
    run_lane(tmp_path / "a", spec, LocalTrials(opened(undisturbed, {"rank": 2}, {"rank": 4})))
    disturbed = plan(tmp_path / "b", spec)
    queue = opened(disturbed, {"rank": 2}, {"rank": 4})
    with pytest.raises(KeyboardInterrupt):
        run_lane(tmp_path / "b", spec, LocalTrials(queue, die_after=2))
    known = [len(disturbed.trial_folder(index).reports) for index in range(2)]
    assert sum(known) >= 3  # what was written before it could be handed over counts as well

    again = opened(disturbed, {"rank": 2}, {"rank": 4})
    run_lane(tmp_path / "b", spec, LocalTrials(again))

    for index in range(2):
        found = disturbed.trial_folder(index).reports
        expected = undisturbed.trial_folder(index).reports
        assert [report.steps for report in found] == [report.steps for report in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.score.score == pytest.approx(other.score.score, rel=1e-3)
        assert len(again.view([disturbed.trial_id(index)], 0).metrics) == 2


def test_a_closed_trial_leaves_its_slot_to_the_next(tmp_path: Path, spec: BaseSpec) -> None:
    person = plan(tmp_path, spec, steps=40)
    queue = opened(person, {"rank": 2}, {"rank": 4, "steps": 6})

    class Closing(LocalTrials):
        """Closes trial 0 as soon as it was scored once."""

        def deliver(self, work_id: str, report: RungReport) -> None:
            super().deliver(work_id, report)
            queue.close(person.entry.name, 0)

    run_lane(tmp_path, spec, Closing(queue), slots=1)

    stopped, next_one = (person.trial_folder(index) for index in range(2))
    assert stopped.outcome is not None
    assert stopped.outcome.state == "stopped"
    assert len(stopped.reports) == 1
    assert not stopped.checkpoint.exists()
    assert [report.steps for report in next_one.reports] == [6]


def test_a_trial_that_diverges_fails_alone_with_its_configuration(tmp_path: Path, spec: BaseSpec) -> None:
    person = plan(tmp_path, spec)
    diverging = {"learning_rate": 1e38, "steps": 50}
    queue = opened(person, {"rank": 2}, diverging)
    run_lane(tmp_path, spec, LocalTrials(queue))

    good, bad = (person.trial_folder(index) for index in range(2))
    assert [report.steps for report in good.reports] == [4, 8]
    assert bad.outcome is not None
    assert bad.outcome.state == "failed"
    assert "lower the learning rate" in bad.outcome.detail
    assert bad.configuration == diverging
    assert queue.view([person.trial_id(1)], 0).failure == bad.outcome.detail


def test_a_finished_trial_is_scored_again_on_fresh_seeds_without_training(
    tmp_path: Path, spec: BaseSpec
) -> None:
    person = plan(tmp_path, spec)
    run_lane(tmp_path, spec, LocalTrials(opened(person, {"rank": 2})))
    queue = opened(person, {"rank": 2})
    queue.confirm("person", 0, confirmation(EVALUATION, 2))
    run_lane(tmp_path, spec, LocalTrials(queue))

    reports = person.trial_folder(0).reports
    assert [report.steps for report in reports] == [4, 8, 8]
    assert reports[1].score.fid != reports[2].score.fid
    assert person.trial_folder(0).features.own.shape[0] == 6


def test_guard_images_are_drawn_of_prompts_whose_predictions_moved_and_the_bases_images_once(
    tmp_path: Path, spec: BaseSpec
) -> None:
    """Of the first trial, none; of the second, those of the guard prompt that is nearly the corrected one."""
    person = plan(tmp_path, spec, guards=("a cat on the road", "person lying in the grass"))
    own, guard = 3 + 6, 1 + 2  # at both rungs

    first = run_lane(tmp_path, spec, LocalTrials(opened(person, {"rank": 2})))
    further = opened(person, {"rank": 2}, {"rank": 4, "learning_rate": 2e-2})
    second = run_lane(tmp_path, spec, LocalTrials(further))

    assert first == own + own  # of base and trial
    assert (
        second == own + guard + 2 * guard
    )  # the base's, of both guard prompts, tell what an image may turn into
    assert [len(person.trial_folder(index).features.guards) for index in range(2)] == [0, 2]


def test_prompts_share_the_bases_images_of_a_guard_prompt(tmp_path: Path, spec: BaseSpec) -> None:
    """Also where all images are asked for, whatever predictions say."""
    every = EVALUATION.model_copy(update={"stop_early": False})
    plans = [
        plan(tmp_path, spec, name, guards=("a cat on the road",), evaluation=every)
        for name in ("person", "dog")
    ]
    queue = empty_queue(*plans)
    for each in plans:
        each.trial_folder(0).begin({"rank": 2})
        queue.open(each.entry.name, 0, {"rank": 2})
    queue.complete()

    images = run_lane(tmp_path, spec, LocalTrials(queue))

    own, guard = 3 + 6, 1 + 2
    base, trials = 2 * own + guard, 2 * (own + guard)
    assert images == base + trials
