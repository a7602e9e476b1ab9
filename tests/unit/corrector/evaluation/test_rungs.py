"""The rungs of a search: cheap first, the whole protocol last, and never on the gate's seeds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from corrector.evaluation import Comparison
from corrector.evaluation.rungs import confirmation, rungs, rungs_of_trial
from corrector.prompts import EvaluationSettings, FailingPrompt, SearchSettings

EVALUATION = EvaluationSettings(images=32, guard_images=8)
ENTRY = FailingPrompt(prompt="a", exemplars="exemplars", guard_prompts=("b", "c"))


def test_each_rung_has_twice_the_steps_and_more_images_than_the_one_before() -> None:
    found = rungs(SearchSettings(reduction_factor=2), EVALUATION, steps=300, num_inference_steps=20)

    assert [rung.steps for rung in found] == [75, 150, 300]
    assert [rung.images for rung in found] == [8, 16, 32]
    assert [rung.evaluation.guard_images for rung in found] == [2, 4, 8]
    assert [rung.evaluation.num_inference_steps for rung in found] == [10, 14, 20]


def test_a_shorter_trial_ends_with_the_whole_protocol_too() -> None:
    found = rungs(SearchSettings(reduction_factor=2), EVALUATION, steps=300, num_inference_steps=20)

    assert [rung.steps for rung in rungs_of_trial(found, 100)] == [75, 100]
    assert rungs_of_trial(found, 100)[-1].evaluation == found[-1].evaluation
    assert rungs_of_trial(found, 300) == found


def test_no_rung_has_more_images_than_the_whole_protocol() -> None:
    few = EvaluationSettings(images=4, guard_images=2)
    found = rungs(SearchSettings(), few, steps=300, num_inference_steps=20)

    assert [rung.images for rung in found] == [4, 4, 4]


@settings(max_examples=50, deadline=None)
@given(steps=st.integers(1, 5000), count=st.integers(1, 10), factor=st.integers(2, 16))
def test_steps_always_rise_to_the_last(steps: int, count: int, factor: int) -> None:
    search = SearchSettings(rungs=count, reduction_factor=factor)
    at = [rung.steps for rung in rungs(search, EVALUATION, steps=steps, num_inference_steps=20)]

    assert at == sorted(set(at))
    assert at[-1] == steps
    assert len(at) <= count


def test_trials_confirmation_and_gate_draw_from_seeds_that_never_meet() -> None:
    found = rungs(SearchSettings(reduction_factor=2), EVALUATION, steps=300, num_inference_steps=20)
    protocols = [EVALUATION, found[-1].evaluation, confirmation(EVALUATION, 20)]
    seeds = [
        {seed for _, seed in Comparison.of(ENTRY, each.model_copy(update={"hard_negatives": 0})).rows}
        for each in protocols
    ]

    assert all(len(each) == 32 + 8 for each in seeds)
    assert len(set.union(*seeds)) == 3 * 40


def test_a_rungs_images_are_the_first_of_the_whole_protocols_own() -> None:
    found = rungs(SearchSettings(reduction_factor=2), EVALUATION, steps=300, num_inference_steps=20)
    first, last = (Comparison.of(ENTRY, rung.evaluation).own for rung in (found[0], found[-1]))

    assert last[: len(first)] == first
