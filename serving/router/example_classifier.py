"""Whether a prompt means what an adapter corrects, told by examples: prompts that do, and prompts that almost do.

A paraphrase and a hard negative may be equally near to the registered prompt; which of the examples a prompt is nearest to
says more. Nearness is the sentences' cosine, and the alignment network's logit for the examples that are nearest by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.router.alignment_network import AlignmentNetwork, alignment_network, alignments
from serving.router.weights import classifier_weights
from serving.router.word_matching import Prompt

ENOUGH = 8
"""Fewest hard negatives with which this classifier decides."""
FAR = 0.5
"""Cosine below which a prompt is about something else, whatever it is nearest to; 98 of 100 that mean the same are above."""
FEATURES = 8
_REFUSED = -50.0
"""The logit of a prompt that is far from all examples."""
_ALIGNED = 6
"""Examples of each kind, the nearest by the sentences' cosine, that the network compares."""
_NEAREST = 3


@dataclass(frozen=True)
class Examined:
    """What the examples say of a prompt.

    Attributes:
        logit: That it means the same.
        different: The nearest example that means something else.
        nearer: Whether that one is nearer than every one that means the same.
    """

    logit: float
    different: str
    nearer: bool


def compared(same: Sequence[Prompt], different: Sequence[Prompt], asked: Prompt) -> Examined:
    """What examples of the same meaning and `different` ones say of `asked`; there is at least one of each."""
    likeness, cosines = float(_cosines(same, asked).max()), _cosines(different, asked)
    nearest = different[int(cosines.argmax())].reading.text
    if likeness < FAR:
        return Examined(_REFUSED, nearest, nearer=False)
    found = features(alignment_network(), same, different, asked)
    logit = float(np.dot(classifier_weights().examples, (*found, 1.0)))
    return Examined(logit, nearest, nearer=bool(cosines.max() > likeness))


def features(
    network: AlignmentNetwork, same: Sequence[Prompt], different: Sequence[Prompt], asked: Prompt
) -> tuple[float, ...]:
    """The `FEATURES` numbers: of each kind the greatest and the mean of the three greatest cosines and logits."""
    found: list[float] = []
    for examples in (same, different):
        cosines = _cosines(examples, asked)
        near = np.argsort(-cosines, kind="stable")[:_ALIGNED]
        logits = alignments(network, [examples[index].tokens for index in near], asked.tokens)
        for values in (cosines, np.array(logits)):
            greatest = np.sort(values)[::-1][:_NEAREST]
            found += [float(greatest[0]), float(greatest.mean())]
    return tuple(found)


def _cosines(examples: Sequence[Prompt], asked: Prompt) -> NDArray[np.float32]:
    return np.array([example.sentence @ asked.sentence for example in examples], np.float32)
