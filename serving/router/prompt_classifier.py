"""Whether a prompt means the same as a registered one: logistic classifiers, the same for all adapters.

Where an adapter has paraphrases only, the classifier weighs what a comparison of the words says
(serving.router.word_comparison) and what the alignment network says of the pair. Where it has hard negatives too, another one
compares the prompt with both kinds of examples (serving.router.example_classifier).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from serving.router import example_classifier
from serving.router.alignment_network import AlignmentNetwork, alignment_network, alignments
from serving.router.weights import classifier_weights
from serving.router.word_comparison import Comparison, Differences, comparisons
from serving.router.word_matching import Prompt

_TEXTS = 4
"""Registered texts of an adapter, the nearest by the sentences' cosine, that a prompt is compared with."""
_REFUSED = -50.0
"""The logit of a refusal."""
_NOT_NEAR = "not near enough"
_NO_DIFFERENCE = Comparison(Differences(*(0.0 for _ in fields(Differences))))


@dataclass(frozen=True, eq=False)
class RegisteredPrompts:
    """What was registered with an adapter: `same` mean the same as its prompt, `guards` and `negatives` do not."""

    same: tuple[Prompt, ...]
    guards: tuple[Prompt, ...]
    negatives: tuple[Prompt, ...] = ()

    @classmethod
    def of(
        cls,
        prompt: str,
        paraphrases: Sequence[str],
        guards: Sequence[str],
        negatives: Sequence[str],
        read: Mapping[str, Prompt],
    ) -> RegisteredPrompts:
        kinds = ((prompt, *paraphrases), guards, negatives)
        return cls(*(tuple(read[text] for text in texts) for texts in kinds))


@dataclass(frozen=True)
class Verdict:
    """The logit that a prompt means the same, and what speaks most against it."""

    logit: float
    reason: str


@dataclass(frozen=True)
class Likeness:
    """How much `asked` is like what is registered.

    Attributes:
        alignments: The alignment network's logit for each text that means the same.
        guarded: How much nearer a guard prompt is by the sentences' cosine; at least 0.
    """

    alignments: tuple[float, ...]
    guarded: float

    @classmethod
    def of(
        cls, network: AlignmentNetwork, same: Sequence[Prompt], guards: Sequence[Prompt], asked: Prompt
    ) -> Likeness:
        found = alignments(network, [text.tokens for text in same], asked.tokens)
        return cls(tuple(found), _guarded(same, guards, asked))

    def features(self, index: int, comparison: Comparison) -> tuple[float, ...]:
        """The `FEATURES` numbers that the classifier weighs for the text `index`; the smaller each is, the more alike."""
        assert comparison.differences is not None
        mean = sum(self.alignments) / len(self.alignments)
        contradicted = float(bool(comparison.contradiction))
        return (*comparison.differences.features, contradicted, -self.alignments[index], -mean, self.guarded)


FEATURES = len(fields(Differences)) + 4


def closest(registered: RegisteredPrompts, asked: Prompt, *, explain: bool = True) -> Verdict:
    """The verdict for the registered text that is closest to `asked`, or by the examples where there are enough.

    Args:
        explain: Compare the words even where the network alone refuses the prompt; the words give the reason.
    """
    if len(registered.negatives) >= example_classifier.ENOUGH:
        different = (*registered.guards, *registered.negatives)
        logit, against = example_classifier.compared(registered.same, different, asked)
        return Verdict(logit, against or _NOT_NEAR)
    same = sorted(registered.same, key=lambda text: -float(text.sentence @ asked.sentence))[:_TEXTS]
    likeness = Likeness.of(alignment_network(), same, (*registered.guards, *registered.negatives), asked)
    most = max(_logit(likeness.features(index, _NO_DIFFERENCE)) for index in range(len(same)))
    if not explain and most < classifier_weights().threshold:
        return Verdict(most, _NOT_NEAR)
    found = [
        _verdict(likeness, index, comparison) for index, comparison in enumerate(comparisons(same, asked))
    ]
    return max(found, key=lambda verdict: verdict.logit)


def _verdict(likeness: Likeness, index: int, comparison: Comparison) -> Verdict:
    if comparison.refusal:
        return Verdict(_REFUSED, comparison.refusal)
    reason = comparison.contradiction or comparison.doubt or _NOT_NEAR
    return Verdict(_logit(likeness.features(index, comparison)), reason)


def _logit(features: Sequence[float]) -> float:
    return float(np.dot(classifier_weights().differences, (*features, 1.0)))


def _guarded(same: Sequence[Prompt], guards: Sequence[Prompt], asked: Prompt) -> float:
    if not guards:
        return 0.0
    nearest, guarded = (
        max(float(each.sentence @ asked.sentence) for each in texts) for texts in (same, guards)
    )
    return max(0.0, guarded - nearest + 0.1)
