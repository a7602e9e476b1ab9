"""The router's precision on prompts that it was not made with; `python -m tests.benchmarks.router` prints the same figures."""

import json
from collections import Counter

import pytest

from corrector.values import normalised
from serving.router.embedding import Embedder
from tests.benchmarks.router import RESULTS, SETS, Case, evaluate, handwritten, router_for, summary
from tests.support.snapshots import Registered


def cases(title: str) -> tuple[list[Registered], list[Case]]:
    """A set of the router's evaluation."""
    return SETS[title]()


def test_one_adapter_takes_its_prompts_and_no_others(embedder: Embedder) -> None:
    registered, asked = cases("natural")
    (lying,) = (entry for entry in registered if entry.name == "woman-lying-grass")
    near = [case for case in asked if case.near in (lying.name, "elsewhere")]
    found = evaluate(router_for([lying], embedder), near)
    kept = json.loads(RESULTS.read_text())["natural"]["adapters"]
    assert {name: summary(counts) for name, counts in found.by_adapter.items()} == {
        name: kept[name] for name in (lying.name, "elsewhere")
    }, found.total.mistakes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "precision", "recall"),
    [
        ("world", 0.98, 0.95),
        ("natural", 0.96, 0.95),
        ("everyday-development", 0.97, 0.82),
        ("everyday", 0.98, 0.80),
        ("more-everyday", 0.98, 0.84),
        ("third-everyday", 0.97, 0.87),
        ("unseen", 0.94, 0.58),
        ("unseen, drafted", 0.97, 0.72),
    ],
)
def test_precision_and_recall(embedder: Embedder, title: str, precision: float, recall: float) -> None:
    registered, asked = cases(title)
    counts = evaluate(router_for(registered, embedder), asked).total
    assert counts.precision >= precision, counts.mistakes
    assert counts.recall >= recall, counts.mistakes
    kept = json.loads(RESULTS.read_text())[title]["total"]
    assert abs(kept["precision"] - counts.precision) < 0.02
    assert abs(kept["recall"] - counts.recall) < 0.03


def test_the_everyday_subjects_have_thirty_prompts_each_in_two_halves() -> None:
    halves = [cases(title)[1] for title in ("everyday-development", "everyday")]
    prompts = [{normalised(case.prompt) for case in half} for half in halves]
    assert prompts[0].isdisjoint(prompts[1])
    assert sum(map(len, halves)) >= 300 and min(map(len, halves)) >= 150
    near = Counter(case.near for half in halves for case in half if case.near != "elsewhere")
    assert len(near) >= 8 and min(near.values()) >= 30


def test_there_are_enough_natural_prompts_and_none_is_registered() -> None:
    registered, asked = cases("natural")
    assert len(registered) >= 8
    assert len(asked) >= 150
    known = {normalised(text) for entry in registered for text in (entry.prompt, *entry.paraphrases)}
    assert known.isdisjoint(normalised(case.prompt) for case in asked)


def test_the_development_prompts_share_no_adapter_with_the_natural_ones() -> None:
    development, _ = handwritten("development_prompts.yaml")
    natural, _ = cases("natural")
    assert {entry.prompt for entry in development}.isdisjoint(entry.prompt for entry in natural)
