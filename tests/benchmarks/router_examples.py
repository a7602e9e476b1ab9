"""Fits the weights of the router's examples: `python -m tests.benchmarks.router_examples`, three minutes on one core.

The adapters are those of a handwritten file for which a language model drafted paraphrases and hard negatives, without having
seen the prompts that are routed (`router_prompts/drafts`). The figures that are printed are of weights that were fitted
without the adapter. The bias is moved so that at the classifier's threshold `_PRECISION` of the prompts are right.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray

from serving.router.alignment_network import alignment_network
from serving.router.embedding import Embedder
from serving.router.example_classifier import ENOUGH, FAR, features
from serving.router.weights import classifier_weights
from serving.router.word_matching import Prompt
from tests.benchmarks.router import drafted, handwritten
from tests.benchmarks.router_training import WEIGHTS, fit_logistic, threshold

FITTED = "unseen_prompts.yaml"
_DRAFTED = 20
"""Paraphrases that were drafted for each adapter, and as many hard negatives."""
_FOLDS = 6
_OTHERS = 20
"""Prompts around other adapters, for each adapter."""
_PRECISION = 0.98
_RIDGE = 1.0


@dataclass(frozen=True, eq=False)
class Rows:
    """Prompts `[N]` with their adapters, eight features each, and whether they mean the same."""

    adapters: NDArray[np.str_]
    features: NDArray[np.float64]
    same: NDArray[np.float64]

    @property
    def near(self) -> NDArray[np.bool_]:
        """`[N]`: the prompts that are not about something else."""
        return self.features[:, 0] >= FAR


def rows(read: Callable[[str], Prompt], most: int) -> Rows:
    """Every prompt, and some around other adapters, compared with its adapter's first `most` drafts of each kind."""
    found: list[tuple[str, tuple[float, ...], bool]] = []
    registered, cases = drafted(FITTED)
    for entry, written in zip(registered, handwritten(FITTED)[0], strict=True):
        paraphrases = entry.paraphrases[: len(written.paraphrases) + most]
        same = [read(text) for text in (entry.prompt, *paraphrases)]
        different = [read(text) for text in (*entry.guard_prompts, *entry.hard_negatives[:most])]
        near = [case for case in cases if case.near == entry.name]
        others = [case for case in cases if case.near != entry.name]
        for case in (*near, *Random(entry.name).sample(others, _OTHERS)):
            seen = features(alignment_network(), same, different, read(case.prompt))
            found.append((entry.name, seen, case.expected == entry.name))
    adapters, seen_by, same_as = zip(*found, strict=True)
    return Rows(np.array(adapters), np.array(seen_by), np.array(same_as, float))


def fit(chosen: Rows, among: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Weights `[9]`, the bias last, of the near prompts `among` all; the ridge is on features of unit deviation."""
    used = among & chosen.near
    mean, deviation = chosen.features[used].mean(0), chosen.features[used].std(0)
    weights = fit_logistic((chosen.features[used] - mean) / deviation, chosen.same[used], _RIDGE)
    weights[:-1] /= deviation
    weights[-1] -= weights[:-1] @ mean
    return weights


def left_out(fitted: Rows, judged: Rows) -> NDArray[np.float64]:
    """The logit `[N]` of each of `judged` by weights that were fitted on `fitted` without its adapter."""
    names = sorted(set(fitted.adapters.tolist()))
    order = Random(0).sample(names, len(names))
    logits = np.full(len(judged.same), -np.inf)
    for fold in range(_FOLDS):
        out = np.isin(judged.adapters, order[fold::_FOLDS])
        weights = fit(fitted, ~np.isin(fitted.adapters, order[fold::_FOLDS]))
        logits[out] = judged.features[out] @ weights[:-1] + weights[-1]
    return np.where(judged.near, logits, -np.inf)


def main() -> None:
    """Writes the weights and prints what they reach on prompts whose adapters they were not fitted on."""
    torch.set_num_threads(1)
    embedder = Embedder()
    read = lru_cache(maxsize=None)(lambda text: Prompt.of(text, embedder))
    chosen = rows(read, _DRAFTED)
    logits, wanted = left_out(chosen, chosen), chosen.same.sum()
    print(f"{len(logits)} prompts around {len(set(chosen.adapters.tolist()))} adapters, each left out:")
    for precision in (0.99, 0.98, 0.97, 0.95, 0.9):
        found = threshold(logits, chosen.same, precision)
        recall = chosen.same[logits >= found].sum() / wanted
        print(f"  precision {precision:.0%}: recall {recall:.1%}, threshold {found:.2f}")
    limit = threshold(logits, chosen.same, _PRECISION)
    print("with fewer examples of each kind, by the same weights and threshold:")
    for most in (16, ENOUGH, 8):
        fewer = rows(read, most)
        right = fewer.same[left_out(chosen, fewer) >= limit]
        print(f"  {most}: precision {right.mean():.1%}, recall {right.sum() / wanted:.1%}")
    print(f"{chosen.near[chosen.same > 0].mean():.1%} of the prompts that mean the same are near ({FAR})")
    weights = fit(chosen, np.ones_like(chosen.near))
    weights[-1] += classifier_weights().threshold - limit
    fitted = replace(classifier_weights(), examples=[round(weight, 3) for weight in weights.tolist()])
    WEIGHTS.write_text(json.dumps(vars(fitted), indent=1) + "\n")


if __name__ == "__main__":
    main()
