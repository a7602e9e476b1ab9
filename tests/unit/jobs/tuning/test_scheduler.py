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
from corrector.storage import Storage
from jobs.tuning.configurations import Planned
from jobs.tuning.plan import PromptSearch, SearchGroup
from jobs.tuning.queue import DECIDED
from jobs.tuning.scheduler import GroupHalving, brackets
from jobs.tuning.searcher import GroupSearcher
from jobs.tuning.trainable import GROUP, TRIAL

SEARCH = SearchSettings(rungs=3, reduction_factor=2)
STOP, CONTINUE = TrialScheduler.STOP, TrialScheduler.CONTINUE


@pytest.fixture
def groups(tmp_path: Path) -> dict[str, SearchGroup]:
    found = {}
    for name in ("cat", "dog"):
        entry = FailingPrompt(
            name=name,
            prompt=f"a {name}",
            exemplars="exemplars",
            hyperparameters=HyperParameters(rank=4, steps=40, preservation="none"),
        )
        of_prompt = rungs(SEARCH, EvaluationSettings(), steps=40, num_inference_steps=4)
        plan = PromptSearch(f"{name}-0123456789abcdef", entry, "key", Storage.of(tmp_path / name), of_prompt)
        found[name] = SearchGroup(name, (plan,))
    return found


def trial(halving: GroupHalving, prompt: str, index: int) -> Trial:
    made = Trial("trial", stub=True, trial_id=f"{prompt}{index}", config={GROUP: prompt, TRIAL: index})
    halving.on_trial_add(None, made)
    return made


def decisions(halving: GroupHalving, trials: list[Trial], scores: list[float], **more: Any) -> list[str]:
    return [
        halving.on_trial_result(None, each, {"steps": 10, "score": score, **more})
        for each, score in zip(trials, scores, strict=True)
    ]


def test_what_falls_behind_in_its_own_prompt_is_stopped(groups: dict[str, SearchGroup]) -> None:
    halving = GroupHalving(SEARCH, groups)
    cats = [trial(halving, "cat", index) for index in range(1, 5)]
    dogs = [trial(halving, "dog", index) for index in range(1, 3)]

    assert decisions(halving, cats, [0.2, 0.5, 0.1, 0.4]) == [CONTINUE, STOP, CONTINUE, STOP]
    # A dog's distances are larger, which says nothing of its trials.
    assert decisions(halving, dogs, [0.9, 0.8]) == [CONTINUE, CONTINUE]


def test_the_prompts_own_configuration_is_never_stopped(groups: dict[str, SearchGroup]) -> None:
    halving = GroupHalving(SEARCH, groups)
    other, own = trial(halving, "cat", 1), trial(halving, "cat", 0)

    assert decisions(halving, [other, own], [0.1, 0.9]) == [CONTINUE, CONTINUE]


def test_what_beats_only_the_prompts_own_configuration_is_stopped(groups: dict[str, SearchGroup]) -> None:
    halving = GroupHalving(SEARCH, groups)
    cats = [trial(halving, "cat", index) for index in range(4)]

    assert decisions(halving, cats, [0.9, 0.1, 0.2, 0.3]) == [CONTINUE, CONTINUE, STOP, STOP]
    halving.on_trial_complete(None, cats[0], {"steps": 40, "score": 0.8})
    assert decisions(halving, [trial(halving, "cat", 4)], [0.25]) == [STOP]


def test_a_decision_that_an_interrupted_search_took_stays(groups: dict[str, SearchGroup]) -> None:
    halving = GroupHalving(SEARCH, groups)
    cats = [trial(halving, "cat", index) for index in range(1, 4)]

    assert decisions(halving, cats[:2], [0.1, 0.9], **{DECIDED: True}) == [CONTINUE, CONTINUE]
    assert decisions(halving, cats[2:], [0.95], **{DECIDED: False}) == [STOP]


def test_prompts_take_turns_and_every_proposal_is_in_its_journal(groups: dict[str, SearchGroup]) -> None:
    sources = {
        "cat": Planned([{"rank": 1}, {"rank": 2}, {"rank": 4}]),
        "dog": Planned([{"rank": 8}]),
    }
    opened: list[tuple[object, ...]] = []
    closed: list[tuple[object, ...]] = []
    search = GroupSearcher(
        sources,
        groups,
        5,
        on_open=lambda *trial: opened.append(trial),
        on_close=lambda *trial: closed.append(trial),
    )

    proposed = [search.suggest(str(number)) for number in range(5)]

    assert [(each[GROUP], each[TRIAL], each["rank"]) for each in proposed[:4]] == [
        ("cat", 0, 1),
        ("dog", 0, 8),
        ("cat", 1, 2),
        ("cat", 2, 4),
    ]
    assert opened == [
        ("cat", 0, {"rank": 1}),
        ("dog", 0, {"rank": 8}),
        ("cat", 1, {"rank": 2}),
        ("cat", 2, {"rank": 4}),
    ]
    assert proposed[4] == Searcher.FINISHED
    assert groups["cat"].searches[0].trial_folder(2).configuration == {"rank": 4}

    for number in range(4):
        assert not search.is_done
        search.on_trial_complete(str(number), error=number == 3)
    assert search.is_done
    assert closed == [("cat", 0), ("dog", 0), ("cat", 1), ("cat", 2)]


def test_a_job_that_is_to_end_proposes_nothing_more(groups: dict[str, SearchGroup]) -> None:
    opened: list[tuple[object, ...]] = []
    cats = {"cat": Planned([{"rank": 1}])}
    search = GroupSearcher(
        cats, groups, 1, on_open=lambda *trial: opened.append(trial), on_close=lambda *trial: None
    )
    search.halted = True

    assert search.suggest("0") == Searcher.FINISHED
    assert opened == []


def test_hyperband_spares_some_trials_the_first_rungs(groups: dict[str, SearchGroup]) -> None:
    halving = GroupHalving(SearchSettings(rungs=3, reduction_factor=2, scheduler="hyperband"), groups)
    order = brackets(3, 2)
    cats = [trial(halving, "cat", index) for index in range(1, 2 * len(order) + 1)]
    # Each is worse than all before it.
    found = decisions(halving, cats, [0.1 + 0.01 * number for number in range(len(cats))])

    spared = [decision for decision, bracket in zip(found, order * 2, strict=True) if bracket > 0]
    halved = [decision for decision, bracket in zip(found, order * 2, strict=True) if bracket == 0]
    assert set(spared) == {CONTINUE}
    assert halved == [CONTINUE] + [STOP] * (len(halved) - 1)


def test_brackets_get_the_shares_of_the_paper() -> None:
    order = brackets(5, 3)

    # Li et al. 2018, table 1, R = 81: 81, 34, 15, 8 and 5 trials.
    assert [order.count(bracket) for bracket in range(5)] == [81, 34, 15, 8, 5]
    assert set(order[:30]) == set(range(5))
