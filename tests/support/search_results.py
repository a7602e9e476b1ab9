"""Results of searches, made by hand."""

from __future__ import annotations

from corrector.evaluation.trial_score import TrialScore
from corrector.prompts.search_settings import Configuration
from corrector.record.search_results import PromptSearchResult, RungReport, SearchResult, TrialResult

BASE_REVISION = "5" * 40


def score(value: float) -> TrialScore:
    return TrialScore(
        score=value,
        distance=value,
        fid=1000 * value,
        fid_base=1000,
        kid=value,
        kid_base=1,
        damage=0,
        diversity=1,
        n=16,
    )


def trial(
    index: int, configuration: Configuration, *values: float, confirmed: float | None = None
) -> TrialResult:
    """A trial that was scored at steps 10, 30, 90 as far as there are values."""
    reports = tuple(
        RungReport(rung=rung, steps=10 * 3**rung, seconds=2.0 * 3**rung, score=score(value))
        for rung, value in enumerate(values)
    )
    return TrialResult(
        index=index,
        configuration=configuration,
        state="finished" if len(values) == 3 else "stopped",
        reports=reports,
        confirmed=None if confirmed is None else score(confirmed),
    )


def search_result(name: str = "person", *, best: float = 0.2) -> SearchResult:
    """A search of one prompt whose third trial was chosen, and whose last failed."""
    failed = TrialResult(
        index=3,
        configuration={"rank": 16, "learning_rate": 1e-2},
        state="failed",
        detail="the loss became nan",
    )
    prompt = PromptSearchResult(
        name=name,
        prompt=f"a {name} <lying> on the grass",
        search_id=f"search-{name}",
        best=2,
        reason="best on fresh seeds",
        difference=-120.0,
        interval=(-200.0, -40.0),
        trials=(
            trial(0, {"rank": 8, "learning_rate": 2e-3}, 0.8, 0.5, 0.4, confirmed=0.4),
            trial(1, {"rank": 4, "learning_rate": 1e-3}, 0.9),
            trial(2, {"rank": 16, "learning_rate": 4e-3}, 0.6, 0.4, 0.21, confirmed=best),
            failed,
        ),
    )
    return SearchResult(
        run="run",
        batch="people.yaml",
        base="embedded",
        base_revision=BASE_REVISION,
        objective="fid",
        extractor="efficientnet_lite0",
        seconds=100.0,
        prompts=(prompt,),
    )
