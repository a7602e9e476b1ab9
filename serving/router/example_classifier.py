"""Whether a prompt means what an adapter corrects, told by examples: prompts that do, and prompts that almost do.

A paraphrase and a hard negative may be equally near to the registered prompt; which of the examples a prompt is nearest to
says more. Nearness is the sentences' cosine, and the alignment network's logit for the examples that are nearest by it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from serving.router.alignment_network import AlignmentNetwork, alignment_network, alignments
from serving.router.weights import classifier_weights
from serving.router.word_matching import Prompt

ENOUGH = 12
"""Fewest hard negatives with which this classifier decides: with 8 of each kind its precision falls from 98 to 94 %."""
FAR = 0.5
"""Cosine below which a prompt is about something else, whatever it is nearest to; 99 of 100 that mean the same are above."""
_REFUSED = -50.0
"""The logit of a prompt that is far from all examples."""
_ALIGNED = 6
"""Examples of each kind, the nearest by the sentences' cosine, that the network compares."""
_NEAREST = 3


def compared(same: Sequence[Prompt], different: Sequence[Prompt], asked: Prompt) -> tuple[float, str]:
    """The logit that `asked` means what the examples `same` mean, and what speaks against it; there is one of each kind."""
    likeness, cosines = _cosines(same, asked).max(), _cosines(different, asked)
    if likeness < FAR:
        return _REFUSED, ""
    found = features(alignment_network(), same, different, asked)
    logit = float(np.dot(classifier_weights().examples, (*found, 1.0)))
    nearest = different[int(cosines.argmax())].reading.text
    return logit, f'it is nearer to "{nearest}"' if cosines.max() > likeness else ""


def features(
    network: AlignmentNetwork, same: Sequence[Prompt], different: Sequence[Prompt], asked: Prompt
) -> tuple[float, ...]:
    """Eight numbers: of each kind the greatest and the mean of the three greatest cosines, and the same of the logits."""
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
