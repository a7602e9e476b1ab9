"""Fits the router's weights on pairs of prompts: `python -m tests.benchmarks.router_training`, about 25 minutes on one core.

synonyms: pairs of words in the lexicon of corrector.prompts.variations, in short prompts: synonyms, and words that exclude
each other.
alignment network, differences: pairs of a registered prompt and another one, written by hand, of the files in WRITTEN. The
weights of the differences are fitted on what networks say that were fitted without the pair's adapter, and the threshold is
the smallest whose precision is `_PRECISION` on pairs for which neither was fitted on the adapter. Afterwards
`python -m tests.benchmarks.router_examples` fits the weights of examples anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from corrector.prompts.variations.lexicon import lexicon
from serving.router import weights as router_weights
from serving.router.alignment_network import WEIGHTS as NETWORK
from serving.router.alignment_network import AlignmentNetwork
from serving.router.embedding import Embedder
from serving.router.prompt_classifier import FEATURES, Likeness
from serving.router.weights import Weights, classifier_weights
from serving.router.word_comparison import comparisons
from serving.router.word_matching import Prompt, synonym_features
from tests.benchmarks.router import HERE, handwritten
from tests.benchmarks.router_network import Written, add_changed, fit_network, generated

WEIGHTS = Path(router_weights.__file__).with_name("weights.json")
WRITTEN = (
    "natural_prompts.yaml",
    "development_prompts.yaml",
    "everyday_prompts.yaml",
    "more_everyday_prompts.yaml",
    "third_everyday_prompts.yaml",
    *(f"training/{path.name}" for path in sorted((HERE / "training").glob("*.yaml"))),
)
_FOLDS = 4
_PRECISION = 0.95
"""Most of the training prompts are harder to tell apart than users' own; 98 of 100 everyday ones accepted are right."""
_RIDGE = 0.3
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
_GENERATED_FROM = {
    "newspaper": "a woman reading a newspaper on a bench",
    "dogs": "two dogs chasing a ball on the beach",
    "chef": "a chef cutting bread in the kitchen",
    "astronaut": "an astronaut riding a horse on the moon",
    "milk": "a child drinking milk at the table",
    "cat": "a cat sleeping on a bed",
}


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


def read_written(embedder: Embedder) -> tuple[list[Written], dict[str, Prompt]]:
    """The handwritten training prompts with changed ones, and all their texts as they are read."""
    found = []
    for file in WRITTEN:
        registered, cases = handwritten(file)
        for entry in registered:
            near = [case for case in cases if case.near == entry.name]
            same, different = (
                tuple(case.prompt for case in near if (case.expected is not None) == wanted)
                for wanted in (True, False)
            )
            texts = (entry.prompt, *entry.paraphrases)
            found.append(Written(f"{file}/{entry.name}", texts, tuple(entry.guard_prompts), same, different))
    add_changed(found)
    found += [generated(f"generated/{name}", prompt) for name, prompt in _GENERATED_FROM.items()]
    return found, {
        text: Prompt.of(text, embedder) for text in sorted({t for each in found for t in each.texts})
    }


@dataclass(frozen=True, eq=False)
class Pair:
    """A registered prompt with its paraphrases, and another prompt.

    Attributes:
        features: `[K, FEATURES]`, one row for each registered text for which the prompt is not refused.
    """

    adapter: str
    text: str
    same: bool
    features: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        written: Written,
        text: str,
        same: bool,
        prompts: Mapping[str, Prompt],
        network: AlignmentNetwork,
    ) -> Pair:
        registered = [prompts[each] for each in written.registered]
        likeness = Likeness.of(network, registered, [prompts[each] for each in written.guards], prompts[text])
        rows = [
            likeness.features(index, comparison)
            for index, comparison in enumerate(comparisons(registered, prompts[text]))
            if not comparison.refusal
        ]
        return cls(written.name, text, same, np.array(rows).reshape(len(rows), FEATURES))


def pairs(written: Sequence[Written], prompts: Mapping[str, Prompt], network: AlignmentNetwork) -> list[Pair]:
    """The handwritten pairs of these, as `network` sees them."""
    return [
        Pair.of(each, text, same, prompts, network)
        for each in written
        for same, texts in ((True, each.same), (False, each.different))
        for text in texts
    ]


def difference_weights(training: Sequence[Pair]) -> NDArray[np.float64]:
    """Weights `[FEATURES + 1]`, all but the last at most 0: a difference never makes a prompt more alike."""
    training = [pair for pair in training if len(pair.features)]
    labels = np.array([pair.same for pair in training], float)
    weights = -np.ones(FEATURES)
    for _ in range(4):
        nearest = np.array([pair.features[int(np.argmax(pair.features @ weights))] for pair in training])
        kept = list(range(FEATURES))
        while True:
            found = fit_logistic(nearest[:, kept], labels, _RIDGE)
            rising = [column for column, weight in zip(kept, found, strict=False) if weight > 0]
            if not rising:
                break
            kept = [column for column in kept if column not in rising]
        weights = np.zeros(FEATURES)
        weights[kept] = found[:-1]
    return np.append(weights, found[-1])


def score(pair: Pair, weights: NDArray[np.float64]) -> float:
    """The logit; -inf for a refusal."""
    return float((pair.features @ weights[:-1]).max(initial=-np.inf) + weights[-1])


def left_out(
    written: Sequence[Written], prompts: Mapping[str, Prompt]
) -> tuple[NDArray[np.float64], list[tuple[Pair, float]]]:
    """Cross-validation by adapter: the weights, and every handwritten pair with its logit.

    A pair's alignments come from a network, and its logit from weights, that were fitted without its adapter. The weights that
    are returned are fitted on all pairs.
    """
    order = Random(0).sample(range(len(written)), len(written))
    folds = [[written[index] for index in order[fold::_FOLDS]] for fold in range(_FOLDS)]
    seen: list[list[Pair]] = []
    for number, fold in enumerate(folds, start=1):
        others = [each for each in written if each not in fold]
        network = fit_network(others, {text: prompt.tokens for text, prompt in prompts.items()})
        seen.append(pairs(fold, prompts, network))
        print(f"network {number} of {_FOLDS}: fitted on {len(others)} adapters", flush=True)
    scored = []
    for fold_pairs in seen:
        weights = difference_weights([pair for each in seen if each is not fold_pairs for pair in each])
        scored += [(pair, score(pair, weights)) for pair in fold_pairs]
    return difference_weights([pair for each in seen for pair in each]), scored


def threshold(logits: NDArray[np.float64], same: NDArray[np.float64], precision: float) -> float:
    """The smallest finite one of `logits` `[N]` from which on the precision is at least `precision`; infinity for none."""
    order = np.argsort(-logits, kind="stable")
    right = np.cumsum(same[order]) >= precision * np.arange(1, len(order) + 1)
    return float(logits[order][right & np.isfinite(logits[order])].min(initial=np.inf))


def main() -> None:
    """Writes the weights and prints what they reach on pairs whose adapters they were not fitted on."""
    torch.set_num_threads(1)
    embedder = Embedder()
    synonyms = synonym_weights(embedder)
    examples = classifier_weights().examples
    _write(Weights(synonyms, [], examples, 0.0))
    written, prompts = read_written(embedder)
    weights, scored = left_out(written, prompts)
    logits = np.array([logit for _, logit in scored])
    same = np.array([pair.same for pair, _ in scored], float)
    limit = threshold(logits, same, _PRECISION)
    network = fit_network(written, {text: prompt.tokens for text, prompt in prompts.items()})
    save_file({name: tensor.half() for name, tensor in network.state_dict().items()}, NETWORK)
    _write(
        Weights(
            {role: [round(w, 3) for w in each] for role, each in synonyms.items()},
            [round(w, 3) for w in weights.tolist()],
            examples,
            round(limit, 3),
        )
    )
    print(f"{len(scored)} pairs, threshold {limit:.2f}; accepted where all was fitted without the adapter:")
    for file in WRITTEN:
        _print_accepted(file, [each for each in scored if each[0].adapter.startswith(f"{file}/")], limit)
    _print_accepted("in all", scored, limit)
    for precision in (0.99, 0.98, 0.97, 0.95, 0.9):
        found = threshold(logits, same, precision)
        recall = same[logits >= found].sum() / same.sum()
        print(f"  precision {precision:.0%}: recall {recall:.1%}, threshold {found:.2f}")


def _write(weights: Weights) -> None:
    WEIGHTS.write_text(json.dumps(vars(weights), indent=1) + "\n")
    classifier_weights.cache_clear()


def _print_accepted(title: str, scored: list[tuple[Pair, float]], limit: float) -> None:
    accepted = [pair.same for pair, logit in scored if logit >= limit]
    wanted = sum(pair.same for pair, _ in scored)
    print(f"  {title:22} {sum(accepted):3} of {wanted:3}, {len(accepted) - sum(accepted)} wrong")


if __name__ == "__main__":
    main()
