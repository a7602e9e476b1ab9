"""Whether a prompt means the same as a registered one: a logistic classifier of the pair, the same for all adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from serving.router.weights import classifier_weights
from serving.router.word_comparison import Comparison, comparisons
from serving.router.word_matching import Prompt

_TEXTS = 4
"""Registered texts of an adapter, the nearest by the sentences' cosine, that a prompt is compared with."""
_REFUSED = -50.0
"""The logit of a contradiction."""


@dataclass(frozen=True, eq=False)
class RegisteredPrompts:
    """The prompts that were registered with an adapter: `same` mean the same as its prompt, `guards` do not."""

    same: tuple[Prompt, ...]
    guards: tuple[Prompt, ...]

    @classmethod
    def of(
        cls, prompt: str, paraphrases: Sequence[str], guards: Sequence[str], read: Mapping[str, Prompt]
    ) -> RegisteredPrompts:
        return cls(tuple(read[text] for text in (prompt, *paraphrases)), tuple(read[text] for text in guards))


@dataclass(frozen=True)
class Verdict:
    """The logit that a prompt means the same, and what speaks most against it."""

    logit: float
    reason: str


def closest(registered: RegisteredPrompts, asked: Prompt) -> Verdict:
    """The verdict for the registered text that is closest to `asked` in its words, or a refusal where a guard prompt is."""
    near = sorted(registered.same, key=lambda text: -float(text.sentence @ asked.sentence))[:_TEXTS]
    guarded = guardedness(registered.same, registered.guards, asked)
    verdicts = [_verdict(comparison, guarded) for comparison in comparisons(near, asked)]
    best = max(verdicts, key=lambda verdict: verdict.logit)
    if best.logit < classifier_weights().threshold:
        return best
    guards = sorted(registered.guards, key=lambda text: -float(text.sentence @ asked.sentence))[:_TEXTS]
    for guard in guards:
        (comparison,) = comparisons([guard], asked)
        if _verdict(comparison, guarded).logit >= best.logit:
            return Verdict(_REFUSED, f'its words are nearer to the guard prompt "{guard.reading.text}"')
    return best


def _verdict(comparison: Comparison, guarded: float) -> Verdict:
    if comparison.differences is None:
        return Verdict(_REFUSED, comparison.contradiction)
    features = (*comparison.differences.features, guarded, 1.0)
    logit = float(np.dot(classifier_weights().differences, features))
    return Verdict(logit, comparison.doubt or "not near enough")


def guardedness(same: Sequence[Prompt], guards: Sequence[Prompt], asked: Prompt) -> float:
    """How much nearer `asked` is to a guard prompt than to the texts `same`, by the sentences' cosine; at least 0."""
    if not guards:
        return 0.0
    nearest, guarded = (
        max(float(each.sentence @ asked.sentence) for each in texts) for texts in (same, guards)
    )
    return max(0.0, guarded - nearest + 0.1)
