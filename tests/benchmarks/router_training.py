"""Fits the router's weights, serving/router/weights.json, on pairs of prompts: `python -m tests.benchmarks.router_training`.

synonyms: pairs of words in the lexicon of corrector.prompts.variations, in short prompts: synonyms, and words that exclude
each other.
differences: pairs of a registered prompt and another one. Written by hand: development_prompts.yaml and the files of EVERYDAY.
Generated with the lexicon: paraphrases and hard negatives of the registered prompts of the first and of `_GENERATED_FROM`.
The threshold is the smallest whose precision is `_PRECISION` on the handwritten ones and natural_prompts.yaml, each scored by
weights that were fitted without its adapter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from corrector.prompts.variations import hard_negatives, paraphrases
from corrector.prompts.variations.lexicon import lexicon
from serving.router import weights as router_weights
from serving.router.embedding import Embedder
from serving.router.prompt_classifier import guardedness
from serving.router.weights import Weights, classifier_weights
from serving.router.word_comparison import Comparison, Differences, comparisons
from serving.router.word_matching import Prompt, synonym_features
from tests.benchmarks.router import handwritten
from tests.support.snapshots import Registered

WEIGHTS = Path(router_weights.__file__).with_name("weights.json")
EVERYDAY = ("everyday_prompts.yaml", "more_everyday_prompts.yaml")
_PRECISION = 0.98
_RIDGE = 0.3
_HANDWRITTEN = 4
"""How much more a pair that was written by hand counts than a generated one."""
_FRAMES = {
    "pose": ("a man {} in the park", "photo of an old woman {} on a bed, 35mm"),
    "motion": ("a man {} in the park", "photo of a dog {} on a bridge, 35mm"),
    "handling": ("a man {} a box", "photo of an old woman {} a rope, 35mm"),
    "doing": ("a man {} in the kitchen", "photo of a child {} outside, 35mm"),
    "social": ("two men {} in the park", "photo of two children {} in an office, 35mm"),
    "face": ("a man {} in the park", "photo of a child {} at home, 35mm"),
    "living": ("a photo of a {} in the park", "an old {} sitting on a bench, 35mm"),
    "thing": ("a photo of a {} on a table", "a man holding a {}, 35mm"),
    "body": ("a photo of a {} close up", "an old {} on a table, 35mm"),
    "clothing": ("a man wearing a {}", "photo of a {} on a table"),
    "place": ("a man standing {}", "photo of an old woman lying {}, 35mm"),
}
"""Prompts around a word, by the lexicon's families and domains."""
_GENERATED_FROM = (
    Registered("newspaper", "a woman reading a newspaper on a bench"),
    Registered("dogs", "two dogs chasing a ball on the beach"),
    Registered("chef", "a chef cutting bread in the kitchen"),
    Registered("astronaut", "an astronaut riding a horse on the moon"),
    Registered("milk", "a child drinking milk at the table"),
    Registered("cat", "a cat sleeping on a bed"),
)


@dataclass(frozen=True, eq=False)
class Pair:
    """A registered prompt with its paraphrases, and another prompt.

    Attributes:
        features: `[K, D]`, one row for each registered text that the prompt does not contradict.
        guards: Likewise for guard prompts.
    """

    adapter: str
    text: str
    same: bool
    handwritten: bool
    features: NDArray[np.float64]
    guards: NDArray[np.float64]


def synonym_weights(embedder: Embedder) -> dict[str, list[float]]:
    """Weights for "action" and "thing"."""
    known, rng = lexicon(), Random(0)
    words = {
        **{
            family: {g: [form.participle for form in forms[:6]] for g, forms in groups.items()}
            for family, groups in known.actions.items()
        },
        **{
            domain: {g: list(nouns[:4]) for g, nouns in groups.items()}
            for domain, groups in known.nouns.items()
        },
        "place": {g: list(phrases[:5]) for g, phrases in known.places.items()},
    }
    rows: dict[str, list[tuple[tuple[float, ...], bool]]] = {"action": [], "thing": []}
    for family, frames in _FRAMES.items():
        groups = words[family]
        written = [(group, word) for group, each in groups.items() for word in each]
        prompts = {
            (word, frame): Prompt.of(frame.format(word), embedder) for _, word in written for frame in frames
        }
        for group, word in written:
            alike = [other for g, other in written if other != word and known.includes(group, g)]
            others = [other for g, other in written if known.contrast(group, g)]
            for same, chosen in (
                (True, rng.sample(alike, min(6, len(alike)))),
                (False, rng.sample(others, min(12, len(others)))),
            ):
                for other in chosen:
                    # Mostly in one frame, where contexts are equal, as a prompt that differs in one word.
                    one = frames[0] if rng.random() < 0.7 else frames[1]
                    features = _word_features(
                        prompts[word, one], word, one, prompts[other, frames[0]], other, frames[0]
                    )
                    if features is not None:
                        rows["action" if family in known.actions else "thing"].append((features, same))
    for role, each in rows.items():
        print(f"{role}: {len(each)} pairs of words, {sum(same for _, same in each)} of synonyms")
    return {
        role: fit_logistic(
            np.array([x for x, _ in each]), np.array([y for _, y in each], float), _RIDGE
        ).tolist()
        for role, each in rows.items()
    }


def _word_features(
    one: Prompt, word: str, frame: str, two: Prompt, other: str, second: str
) -> tuple[float, ...] | None:
    found = []
    for prompt, text, around in ((one, word, frame), (two, other, second)):
        start = around.index("{")
        inside = [i for i, term in enumerate(prompt.reading.terms) if start <= term.start < start + len(text)]
        if not inside:
            return None
        found.append(inside[0] if around.endswith(("{} in the park", "{} a box")) else inside[-1])
    i, j = found
    return synonym_features(
        one.reading.terms[i], two.reading.terms[j], float(one.vectors[i] @ two.vectors[j])
    )


def fit_logistic(
    features: NDArray[np.float64], labels: NDArray[np.float64], ridge: float
) -> NDArray[np.float64]:
    """Weights `[D + 1]`, the bias last, that minimise log loss plus `ridge / 2 * |weights|^2`, by Newton's method."""
    rows = np.hstack([features, np.ones((len(features), 1))])
    penalty = np.append(np.full(features.shape[1], ridge), 1e-6)
    solution = np.zeros(rows.shape[1])
    for _ in range(50):
        probability = 0.5 * (1.0 + np.tanh(0.5 * (rows @ solution)))
        gradient = rows.T @ (probability - labels) + penalty * solution
        curvature = np.maximum(probability * (1.0 - probability), 1e-9)
        step = np.linalg.solve((rows.T * curvature) @ rows + np.diag(penalty), gradient)
        solution -= step * min(1.0, 10.0 / max(float(np.abs(rows @ step).max()), 1e-12))
        if np.abs(step).max() < 1e-6:
            break
    return solution


def pairs(embedder: Embedder) -> list[Pair]:
    """All training pairs."""
    development = "development_prompts.yaml"
    found = [pair for file in (development, *EVERYDAY) for pair in _handwritten(file, embedder)]
    for entry in (*handwritten(development)[0], *_GENERATED_FROM):
        texts = _Texts.of(Registered(entry.name, entry.prompt), embedder)
        found += [
            texts.pair(entry.name, text, True, False, embedder) for text in paraphrases(entry.prompt, 25)
        ]
        found += [
            texts.pair(entry.name, negative.text, False, False, embedder)
            for negative in hard_negatives(entry.prompt, 45)
            if negative.difference not in ("negation", "missing")
        ]
    return found


def _handwritten(file: str, embedder: Embedder) -> list[Pair]:
    """Each adapter with the prompts near it, and with some others."""
    registered, cases = handwritten(file)
    found: list[Pair] = []
    for entry in registered:
        texts = _Texts.of(entry, embedder)
        near = [case for case in cases if case.near == entry.name]
        far = [case for case in cases if case.near != entry.name][:: max(1, len(cases) // 8)]
        found += [
            texts.pair(entry.name, case.prompt, case.expected == entry.name, True, embedder)
            for case in (*near, *far)
        ]
    return found


@dataclass(frozen=True, eq=False)
class _Texts:
    same: list[Prompt]
    guards: list[Prompt]

    @classmethod
    def of(cls, entry: Registered, embedder: Embedder) -> _Texts:
        return cls(
            [Prompt.of(text, embedder) for text in (entry.prompt, *entry.paraphrases)],
            [Prompt.of(text, embedder) for text in entry.guard_prompts],
        )

    def pair(self, adapter: str, text: str, same: bool, by_hand: bool, embedder: Embedder) -> Pair:
        asked = Prompt.of(text, embedder)
        guarded = guardedness(self.same, self.guards, asked)

        def features(found: list[Comparison]) -> NDArray[np.float64]:
            rows = [(*each.differences.features, guarded) for each in found if each.differences is not None]
            return np.array(rows).reshape(len(rows), len(fields(Differences)) + 1)

        own = features(comparisons(self.same, asked))
        others = [each for guard in self.guards for each in comparisons([guard], asked)]
        return Pair(adapter, text, same, by_hand, own, features(others))


def difference_weights(training: list[Pair]) -> NDArray[np.float64]:
    """Weights `[D + 1]`, all but the last two at most 0: a difference never makes a prompt more alike."""
    training = [
        pair
        for pair in training
        if len(pair.features)
        for _ in range(_HANDWRITTEN if pair.handwritten else 1)
    ]
    labels = np.array([pair.same for pair in training], float)
    weights = np.append(-np.ones(training[0].features.shape[1]), 0.0)
    for _ in range(4):
        nearest = np.array([pair.features[int(np.argmax(pair.features @ weights[:-1]))] for pair in training])
        kept = list(range(nearest.shape[1]))
        while True:
            found = fit_logistic(nearest[:, kept], labels, _RIDGE)
            rising = [column for column, weight in zip(kept, found, strict=False) if weight > 0]
            if not rising:
                break
            kept = [column for column in kept if column not in rising]
        weights = np.zeros(nearest.shape[1] + 1)
        weights[[*kept, -1]] = found
    return weights


def score(pair: Pair, weights: NDArray[np.float64]) -> float:
    """The logit; -inf for a contradiction, and where the prompt is nearer to a guard prompt."""
    logit, guarded = (
        (rows @ weights[:-1]).max(initial=-np.inf) + weights[-1] for rows in (pair.features, pair.guards)
    )
    return float(logit) if logit > guarded else -np.inf


def left_out_scores(training: list[Pair]) -> list[tuple[Pair, float]]:
    """The handwritten pairs, each scored by weights that were fitted without its adapter."""
    found: list[tuple[Pair, float]] = []
    for adapter in sorted({pair.adapter for pair in training if pair.handwritten}):
        weights = difference_weights([pair for pair in training if pair.adapter != adapter])
        found += [
            (pair, score(pair, weights)) for pair in training if pair.adapter == adapter and pair.handwritten
        ]
    return found


def threshold(scored: list[tuple[Pair, float]]) -> float:
    """The smallest logit from which on the precision is at least `_PRECISION`."""
    for limit in sorted(logit for pair, logit in scored if pair.same and np.isfinite(logit)):
        accepted = [pair.same for pair, logit in scored if logit >= limit]
        if sum(accepted) >= _PRECISION * len(accepted):
            return limit
    return np.inf


def main() -> None:
    """Writes the weights and prints what they reach on pairs whose adapters they were not fitted on."""
    torch.set_num_threads(1)
    embedder = Embedder()
    WEIGHTS.write_text(json.dumps(vars(Weights({"action": [0.0] * 8, "thing": [0.0] * 8}, [], 0.0))))
    classifier_weights.cache_clear()
    synonyms = synonym_weights(embedder)
    WEIGHTS.write_text(json.dumps(vars(Weights(synonyms, [], 0.0))))
    classifier_weights.cache_clear()
    training = pairs(embedder)
    weights, scored = difference_weights(training), left_out_scores(training)
    scored += [(pair, score(pair, weights)) for pair in _handwritten("natural_prompts.yaml", embedder)]
    limit = threshold(scored)
    kept = Weights(
        {role: [round(w, 3) for w in each] for role, each in synonyms.items()},
        [round(w, 3) for w in weights.tolist()],
        round(limit, 3),
    )
    WEIGHTS.write_text(json.dumps(vars(kept), indent=1) + "\n")
    classifier_weights.cache_clear()
    print(
        f"{len(training)} pairs, threshold {limit:.2f}; accepted where the weights were fitted without the adapter:"
    )
    for adapter in sorted({pair.adapter for pair, _ in scored}):
        _print_accepted(adapter, [each for each in scored if each[0].adapter == adapter], limit)
    _print_accepted("in all", scored, limit)


def _print_accepted(title: str, scored: list[tuple[Pair, float]], limit: float) -> None:
    accepted = [pair.same for pair, logit in scored if logit >= limit]
    wanted = sum(pair.same for pair, _ in scored)
    print(f"  {title:22} {sum(accepted):3} of {wanted:3}, {len(accepted) - sum(accepted)} wrong")


if __name__ == "__main__":
    main()
