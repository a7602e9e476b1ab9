"""Tune's part of a search: prompts take turns, and trials are stopped only among those of their own prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from corrector.evaluation.rungs import rungs
from corrector.prompts import EvaluationSettings, FailingPrompt, HyperParameters, SearchSettings
from jobs.proposals import Planned
from jobs.trial_function import PROMPT, TRIAL
from jobs.trial_queue import DECIDED
from jobs.trials import PromptPlan
from jobs.tuning import PromptHalving, PromptSearch

SEARCH = SearchSettings(rungs=3, reduction_factor=2)
STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


@pytest.fixture
def plans(tmp_path: Path) -> dict[str, PromptPlan]:
    found = {}
    for name in ("cat", "dog"):
        entry = FailingPrompt(
            name=name,
            prompt=f"a {name}",
            exemplars="exemplars",
            hyperparameters=HyperParameters(rank=4, steps=40, preservation="none"),
        )
        of_prompt = rungs(SEARCH, EvaluationSettings(), steps=40, num_inference_steps=4)
        found[name] = PromptPlan(f"{name}-0123456789abcdef", entry, "key", str(tmp_path / name), of_prompt)
    return found


def trial(halving: PromptHalving, prompt: str, index: int) -> Trial:
    made = Trial("trial", stub=True, trial_id=f"{prompt}{index}", config={PROMPT: prompt, TRIAL: index})
    halving.on_trial_add(None, made)
    return made


def decisions(halving: PromptHalving, trials: list[Trial], scores: list[float], **more: Any) -> list[str]:
    return [
        halving.on_trial_result(None, each, {"steps": 10, "score": score, **more})
        for each, score in zip(trials, scores, strict=True)
    ]


def test_what_falls_behind_in_its_own_prompt_is_stopped(plans: dict[str, PromptPlan]) -> None:
    halving = PromptHalving(SEARCH, plans)
    cats = [trial(halving, "cat", index) for index in range(1, 5)]
    dogs = [trial(halving, "dog", index) for index in range(1, 3)]

    assert decisions(halving, cats, [0.2, 0.5, 0.1, 0.4]) == [CONTINUE, STOP, CONTINUE, STOP]
    # A dog's distances are larger, which says nothing of its trials.
    assert decisions(halving, dogs, [0.9, 0.8]) == [CONTINUE, CONTINUE]


def test_the_prompts_own_configuration_is_never_stopped(plans: dict[str, PromptPlan]) -> None:
    halving = PromptHalving(SEARCH, plans)
    other, own = trial(halving, "cat", 1), trial(halving, "cat", 0)

    assert decisions(halving, [other, own], [0.1, 0.9]) == [CONTINUE, CONTINUE]


def test_what_beats_only_the_prompts_own_configuration_is_stopped(plans: dict[str, PromptPlan]) -> None:
    halving = PromptHalving(SEARCH, plans)
    cats = [trial(halving, "cat", index) for index in range(4)]

    assert decisions(halving, cats, [0.9, 0.1, 0.2, 0.3]) == [CONTINUE, CONTINUE, STOP, STOP]
    halving.on_trial_complete(None, cats[0], {"steps": 40, "score": 0.8})
    assert decisions(halving, [trial(halving, "cat", 4)], [0.25]) == [STOP]


def test_a_decision_that_an_interrupted_search_took_stays(plans: dict[str, PromptPlan]) -> None:
    halving = PromptHalving(SEARCH, plans)
    cats = [trial(halving, "cat", index) for index in range(1, 4)]

    assert decisions(halving, cats[:2], [0.1, 0.9], **{DECIDED: True}) == [CONTINUE, CONTINUE]
    assert decisions(halving, cats[2:], [0.95], **{DECIDED: False}) == [STOP]


def test_prompts_take_turns_and_every_proposal_is_in_its_journal(plans: dict[str, PromptPlan]) -> None:
    sources = {
        "cat": Planned([{"rank": 1}, {"rank": 2}, {"rank": 4}]),
        "dog": Planned([{"rank": 8}]),
    }
    search = PromptSearch(sources, plans)

    proposed = [search.suggest(str(number)) for number in range(5)]

    assert [(each[PROMPT], each[TRIAL], each["rank"]) for each in proposed[:4]] == [
        ("cat", 0, 1),
        ("dog", 0, 8),
        ("cat", 1, 2),
        ("cat", 2, 4),
    ]
    assert proposed[4] == Searcher.FINISHED
    assert plans["cat"].trial_folder(2).configuration == {"rank": 4}


def test_a_job_that_is_to_end_proposes_nothing_more(plans: dict[str, PromptPlan]) -> None:
    search = PromptSearch({"cat": Planned([{"rank": 1}])}, plans)
    search.halted = True

    assert search.suggest("0") == Searcher.FINISHED
