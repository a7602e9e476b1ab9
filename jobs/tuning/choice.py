"""Selects the trials of a group that are confirmed on fresh seeds, and chooses the best of them."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from torch import Tensor

from corrector.base import ContentCache
from corrector.evaluation.features import named_extractor
from corrector.evaluation.trial_score import Choice, Contender, choose
from corrector.prompt_inputs import side_of
from corrector.record.search_results import PromptSearchResult, TrialResult
from jobs.inputs.batch import BatchWork
from jobs.tuning.lane import exemplar_features
from jobs.tuning.plan import PromptSearch, SearchGroup
from jobs.tuning.trials import OWN


def finalists(results: Sequence[PromptSearchResult], confirmed: int) -> list[int]:
    """Indices of the trials to confirm: the prompts' own configuration and the `confirmed` best of the others.

    Args:
        results: Results of the prompts of one group; only trials that are finished for all of them are considered.
    """
    finished = {
        trials[0].index: _mean_score(trials)
        for trials in zip(*(result.trials for result in results), strict=False)
        if all(trial.state == "finished" for trial in trials)
    }
    own = [OWN] if finished.pop(OWN, None) is not None else []
    return own + sorted(finished, key=lambda index: (finished[index], index))[:confirmed]


def choose_trial(work: BatchWork, group: SearchGroup, results: Sequence[PromptSearchResult]) -> Choice | None:
    """The best trial of a group by the scores on fresh seeds; None where none was confirmed."""
    batch = work.batch
    contenders = []
    for trials in zip(*(result.trials for result in results), strict=False):
        scores = [trial.confirmed for trial in trials if trial.confirmed is not None]
        if len(scores) == len(group.searches):
            features = [each.trial_folder(trials[0].index).features for each in group.searches]
            contenders.append(Contender(str(trials[0].index), tuple(scores), tuple(features)))
    if not contenders:
        return None
    if contenders[0].trial != str(OWN):
        lowest = min(contenders, key=lambda contender: contender.score)
        reason = (
            "lowest on fresh seeds; the prompt's own configuration failed, so nothing is compared with it"
        )
        return Choice(lowest.trial, reason, None, None)
    return choose(
        contenders[0],
        contenders[1:],
        [_exemplars(work, each) for each in group.searches],
        batch.search.objective,
        batch.evaluation,
    )


def _exemplars(work: BatchWork, search: PromptSearch) -> Tensor:
    """The features `[k, d]` of a prompt's held-out exemplars."""
    side = side_of(search.entry, work.spec)
    extractor = named_extractor(work.batch.search.extractor)
    return exemplar_features(search.task(OWN, {}), side, extractor, ContentCache(work.run.cache)).held_out


def _mean_score(trials: Sequence[TrialResult]) -> float:
    return fmean(trial.reports[-1].score.score for trial in trials)
