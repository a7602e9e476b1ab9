"""Fits the weights of the router's examples: `python -m tests.benchmarks.router_examples`, a minute on one core.

The adapters are those of handwritten files for which a language model drafted paraphrases and hard negatives, without having
seen the prompts that are routed (`router_prompts/drafts`). The figures that are printed are of weights that were fitted
without the adapter. The bias is moved so that at the classifier's threshold `_PRECISION` of the prompts are right.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from serving.router.alignment_network import alignment_network
from serving.router.embedding import Embedder
from serving.router.example_classifier import FAR, features
from serving.router.weights import classifier_weights
from serving.router.word_matching import Prompt
from tests.benchmarks.router import drafted
from tests.benchmarks.router_training import WEIGHTS, fit_logistic

FITTED = ("unseen_prompts.yaml",)
_FOLDS = 6
_OTHERS = 20
"""Prompts around other adapters, for each adapter."""
_PRECISION = 0.98
_RIDGE = 1.0


@dataclass(frozen=True, eq=False)
class Rows:
    """Prompts `[N]` with their adapters, `[N, FEATURES]` features, and whether they mean the same."""

    adapters: NDArray[np.str_]
    features: NDArray[np.float64]
    same: NDArray[np.float64]


def rows(embedder: Embedder) -> Rows:
    """Every prompt of the files in `FITTED`, compared with the examples of its adapter, and some with those of others."""
    found: list[tuple[str, tuple[float, ...], bool]] = []
    for file in FITTED:
        registered, cases = drafted(file)
        for entry in registered:
            same, different = (
                [Prompt.of(text, embedder) for text in texts]
                for texts in (
                    (entry.prompt, *entry.paraphrases),
                    (*entry.guard_prompts, *entry.hard_negatives),
                )
            )
            near = [case for case in cases if case.near == entry.name]
            others = [case for case in cases if case.near != entry.name]
            for case in (*near, *Random(entry.name).sample(others, _OTHERS)):
                asked = Prompt.of(case.prompt, embedder)
                seen = features(alignment_network(), same, different, asked)
                found.append((f"{file}/{entry.name}", seen, case.expected == entry.name))
    adapters, seen_by, same_as = zip(*found, strict=True)
    return Rows(np.array(adapters), np.array(seen_by), np.array(same_as, float))


def fit(chosen: Rows) -> NDArray[np.float64]:
    """Weights `[FEATURES + 1]`, the bias last, of prompts that are not far; the ridge is on features of unit deviation."""
    near = chosen.features[:, 0] >= FAR
    chosen = Rows(chosen.adapters[near], chosen.features[near], chosen.same[near])
    mean, deviation = chosen.features.mean(0), chosen.features.std(0)
    weights = fit_logistic((chosen.features - mean) / deviation, chosen.same, _RIDGE)
    weights[:-1] /= deviation
    weights[-1] -= weights[:-1] @ mean
    return weights


def left_out(chosen: Rows) -> NDArray[np.float64]:
    """The logit `[N]` of each prompt by weights that were fitted without its adapter."""
    names = sorted(set(chosen.adapters.tolist()))
    order = Random(0).sample(names, len(names))
    logits = np.empty(len(chosen.same))
    for fold in range(_FOLDS):
        out = np.isin(chosen.adapters, order[fold::_FOLDS])
        weights = fit(Rows(chosen.adapters[~out], chosen.features[~out], chosen.same[~out]))
        logits[out] = chosen.features[out] @ weights[:-1] + weights[-1]
    logits[chosen.features[:, 0] < FAR] = -np.inf
    return logits


def threshold(logits: NDArray[np.float64], same: NDArray[np.float64], precision: float) -> float:
    """The smallest logit from which on the precision is at least `precision`."""
    order = np.argsort(-logits)
    right = np.cumsum(same[order]) / np.arange(1, len(order) + 1)
    return float(logits[order[np.flatnonzero(right >= precision).max()]])


def main() -> None:
    """Writes the weights and prints what they reach on prompts whose adapters they were not fitted on."""
    torch.set_num_threads(1)
    chosen = rows(Embedder())
    logits = left_out(chosen)
    print(f"{len(logits)} prompts around {len(set(chosen.adapters.tolist()))} adapters, each left out:")
    for precision in (0.99, 0.98, 0.97, 0.95, 0.9):
        found = threshold(logits, chosen.same, precision)
        recall = chosen.same[logits >= found].sum() / chosen.same.sum()
        print(f"  precision {precision:.0%}: recall {recall:.1%}, threshold {found:.2f}")
    weights = fit(chosen)
    weights[-1] += classifier_weights().threshold - threshold(logits, chosen.same, _PRECISION)
    fitted = replace(classifier_weights(), examples=[round(weight, 3) for weight in weights.tolist()])
    WEIGHTS.write_text(json.dumps(vars(fitted), indent=1) + "\n")


if __name__ == "__main__":
    main()
