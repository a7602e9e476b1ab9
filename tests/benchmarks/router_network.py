"""Fits the router's alignment network on pairs of prompts, written by hand or changed at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from corrector.prompts.variations import hard_negatives, paraphrases
from serving.router.alignment_network import AlignmentNetwork, padded

EPOCHS = 14
_BATCH = 64
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 0.05
_SMOOTHING = 0.02
"""Labels are this far from 0 and 1."""
_OTHER_RELATION = {
    "on": "under",
    "under": "on",
    "over": "under",
    "above": "below",
    "below": "above",
    "in": "outside",
    "inside": "outside",
    "beside": "on top of",
    "behind": "in front of",
    "up": "down",
    "down": "up",
    "into": "out of",
    "onto": "off",
    "through": "around",
    "with": "without",
}
_NUMBERS = ("two", "three", "four", "five", "six")
_BEFORE = (
    "photo of ",
    "oil painting of ",
    "watercolour of ",
    "a cinematic shot of ",
    "anime style, ",
    "black and white photograph of ",
    "3d render of ",
    "vintage film still of ",
)
_AFTER = (
    ", 35mm",
    ", film grain",
    ", highly detailed",
    ", golden hour",
    ", studio lighting",
    ", 8k",
    ", soft light, shallow depth of field",
    ", pencil sketch",
    ", on a rainy day",
)
_OTHER_WORDS = (
    "the",
    "and",
    "her",
    "his",
    "its",
    "their",
    "for",
    "from",
    "while",
    "that",
    "who",
    "out",
    "off",
    "near",
    "are",
)
_FUNCTION_WORDS = frozenset((*_OTHER_RELATION, *_NUMBERS, *_OTHER_WORDS))

T = TypeVar("T")
Vectors = Mapping[str, NDArray[np.float16]]
"""Text -> its tokens' vectors `[T, 384]`."""


@dataclass(frozen=True, eq=False)
class Written:
    """Prompts around one registered prompt.

    Attributes:
        registered: The prompt and its paraphrases.
        guards: Its guard prompts.
        same, different: Prompts that mean the same, and others.
        changed_same, changed_different: Likewise, made of the above at random.
    """

    name: str
    registered: tuple[str, ...]
    guards: tuple[str, ...]
    same: tuple[str, ...]
    different: tuple[str, ...]
    changed_same: list[str] = field(default_factory=list)
    changed_different: list[str] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        changed = self.changed_same + self.changed_different
        return [*self.registered, *self.guards, *self.same, *self.different, *changed]


def add_changed(written: Sequence[Written], seed: int = 0) -> None:
    """Add prompts with a misspelt word or a style, and others with words exchanged, another relation, number or word.

    Where the lexicon of corrector.prompts.variations knows the words, also paraphrases and hard negatives.
    """
    rng = Random(seed)
    words = [word for each in written for word in each.registered[0].split() if _has_content(word)]
    for each in written:
        same = each.same
        alike = [_misspelt(text, rng) for text in (*each.registered, *_some(same, 5, rng))]
        alike += [_styled(text, rng) for text in _some((*each.registered, *same), 4, rng)]
        changes: list[tuple[Callable[[str, Random], str], int]] = [
            (_exchanged, 7),
            (_elsewhere, 4),
            (_counted, 2),
            (lambda text, rng: _replaced(text, words, rng), 4),
        ]
        others = [
            change(text, rng)
            for change, count in changes
            for text in _some((*each.registered, *same), count, rng)
        ]
        known = {text.lower() for text in (*each.registered, *same)}
        each.changed_same.extend(alike)
        each.changed_different.extend(text for text in others if text.lower() not in known)
        _add_variations(each)


def _add_variations(written: Written) -> None:
    prompt, known = written.registered[0], {text.lower() for text in written.texts}
    same = [text for text in paraphrases(prompt, 8) if text.lower() not in known]
    different = [text for text in negatives(prompt, 16) if text.lower() not in known]
    written.changed_same.extend(same[:6])
    written.changed_different.extend(different[:8])


def generated(name: str, prompt: str) -> Written:
    """Prompts around one whose words the lexicon knows."""
    texts = (prompt, *paraphrases(prompt, 25))
    return Written(name, texts[:4], (), texts[4:], tuple(negatives(prompt, 45)))


def negatives(prompt: str, count: int) -> list[str]:
    """Hard negatives without those that are negated or lack a part."""
    return [
        each.text for each in hard_negatives(prompt, count) if each.difference not in ("negation", "missing")
    ]


def _some(values: Sequence[T], count: int, rng: Random) -> list[T]:
    return rng.sample(values, min(count, len(values)))


def _has_content(word: str) -> bool:
    plain = word.strip(".,;:()").lower()
    return len(plain) > 2 and plain.isalpha() and plain not in _FUNCTION_WORDS


def _places(words: Sequence[str]) -> list[int]:
    return [index for index, word in enumerate(words) if _has_content(word)]


def _misspelt(text: str, rng: Random) -> str:
    words = text.split()
    for index in _some(
        [each for each in _places(words) if len(words[each]) > 3], 1 + (rng.random() < 0.3), rng
    ):
        word, at = words[index], rng.randrange(1, len(words[index]) - 1)
        changed = word[at + 1] + word[at], word[at + 1], word[at] * 2 + word[at + 1]
        words[index] = word[:at] + rng.choice(changed) + word[at + 2 :]
    return " ".join(words)


def _styled(text: str, rng: Random) -> str:
    if rng.random() < 0.5:
        return text + rng.choice(_AFTER)
    return rng.choice(_BEFORE) + text[0].lower() + text[1:]


def _exchanged(text: str, rng: Random) -> str:
    words = text.split()
    places = _places(words)
    if len(places) > 1:
        one, other = rng.sample(places, 2)
        words[one], words[other] = words[other], words[one]
    return " ".join(words)


def _elsewhere(text: str, rng: Random) -> str:
    words = text.split()
    places = [index for index, word in enumerate(words) if word.lower() in _OTHER_RELATION]
    for index in _some(places, 1, rng):
        words[index] = _OTHER_RELATION[words[index].lower()]
    return " ".join(words)


def _counted(text: str, rng: Random) -> str:
    words = text.split()
    places = [index for index, word in enumerate(words) if word.lower() in ("a", "an", "one", *_NUMBERS)]
    for index in places[:1]:
        words[index] = rng.choice([number for number in _NUMBERS if number != words[index].lower()])
    return " ".join(words)


def _replaced(text: str, others: Sequence[str], rng: Random) -> str:
    words = text.split()
    for index in _some(_places(words), 1, rng):
        words[index] = rng.choice(others)
    return " ".join(words)


def _epoch(written: Sequence[Written], rng: Random) -> list[tuple[str, str, float]]:
    """Pairs of a registered text and another one, and whether they mean the same; other ones in each epoch."""
    found = []
    for each in written:
        same = [*each.same, *_some(each.changed_same, 5, rng)]
        different = [*each.different, *each.guards, *_some(each.changed_different, 6, rng)]
        found += [(rng.choice(each.registered), text, 1.0) for text in same]
        found += [(rng.choice(each.registered), text, 0.0) for text in different]
        found += [
            (rng.choice([other for other in each.registered if other != text]), text, 1.0)
            for text in each.registered
            if len(each.registered) > 1
        ]
        found += [(rng.choice(each.guards), text, 0.0) for text in _some(each.same, 2, rng) if each.guards]
    rng.shuffle(found)
    return found


def _batches(
    pairs: Sequence[tuple[str, str, float]], vectors: Vectors, rng: Random
) -> list[list[tuple[str, str, float]]]:
    """Batches of pairs of like length."""
    found = []
    for start in range(0, len(pairs), 8 * _BATCH):
        near = sorted(
            pairs[start : start + 8 * _BATCH], key=lambda pair: len(vectors[pair[0]]) + len(vectors[pair[1]])
        )
        found += [near[at : at + _BATCH] for at in range(0, len(near), _BATCH)]
    rng.shuffle(found)
    return found


def fit_network(
    written: Sequence[Written], vectors: Vectors, *, epochs: int = EPOCHS, seed: int = 0
) -> AlignmentNetwork:
    """A network fitted on these prompts, in evaluation mode."""
    torch.manual_seed(seed)
    rng, network = Random(seed), AlignmentNetwork()
    matrices, others = (
        [each for each in network.parameters() if (each.ndim > 1) == matrix] for matrix in (True, False)
    )
    optimiser = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": _WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=_LEARNING_RATE,
    )
    steps = epochs * len(_batches(_epoch(written, rng), vectors, rng))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / (0.05 * steps)) * max(0.02, 1.0 - step / steps)
    )
    network.train()
    for _ in range(epochs):
        for batch in _batches(_epoch(written, rng), vectors, rng):
            registered = padded([vectors[text] for text, _, _ in batch])
            asked = padded([vectors[text] for _, text, _ in batch])
            labels = torch.tensor([pair[2] for pair in batch]) * (1 - 2 * _SMOOTHING) + _SMOOTHING
            loss = binary_cross_entropy_with_logits(network(registered, asked), labels)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return network.eval().requires_grad_(False)
