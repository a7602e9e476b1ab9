"""Finds which words of two prompts stand for each other, by WordNet and by the words' vectors in context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache
from itertools import product
from math import exp
from operator import mul

import numpy as np
from numpy.typing import NDArray

from corrector.prompts.variations.lexicon import lexicon
from serving.router.embedding import Contextual, Embedder
from serving.router.prompt_reading import Reading, Term, read
from serving.router.weights import classifier_weights
from serving.router.wordnet import wordnet

_SAME_WORD = 1.0
_TYPO = 0.9
_SYNONYM = 0.85
"""At least, where both words name one synset first; less by its rank among their meanings."""
_UNRELATED = 0.8
"""At most, for things that WordNet relates in no way: in one context, a truck and a tractor have near vectors."""
_CROSSED = 0.4
"""Factor for an action and a thing, a living thing and another, or two animals of different kinds."""
_NO_MATCH = 0.2
"""Words that mean the same with a lower probability are not matched."""
_POOLED = 0.95
"""Factor for a word that stands in another registered text."""
_LIGHT_VERBS = frozenset(
    ("do", "make", "take", "get", "give", "have", "put", "go", "come", "set", "bring", "keep", "use")
)
"""Verbs whose object has the meaning."""
_ROLE = 0.8
"""At least, for a man or a woman who may be what the other prompt names by a profession or role: "customer"."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt as it is compared.

    Attributes:
        sentence: `[384]`, its vector.
        vectors: `[T, 384]`, those of the reading's terms in context.
        tokens: `[U, 384]`, those of all its tokens in context.
    """

    reading: Reading
    sentence: NDArray[np.float32]
    vectors: NDArray[np.float32]
    tokens: NDArray[np.float16]

    @classmethod
    def of(cls, text: str, embedder: Embedder) -> Prompt:
        reading = read(text)
        contextual: Contextual = embedder.contextual(reading.text)
        vectors = [contextual.word(term.start, term.end) for term in reading.terms]
        return cls(
            reading,
            contextual.sentence,
            np.array(vectors, np.float32).reshape(-1, len(contextual.sentence)),
            contextual.tokens,
        )


def pooled_likeness(texts: Sequence[Prompt], asked: Prompt) -> list[NDArray[np.float64]]:
    """For each of `texts`, which mean the same, the probability `[its terms, asked terms]` that two terms mean the same.

    A term also means what the term in its place in another of the texts means.
    """
    alone = [_likeness(text, asked) for text in texts]
    found = []
    for text, own in zip(texts, alone, strict=True):
        pooled = own.copy()
        for other, theirs in zip(texts, alone, strict=True):
            if other is not text:
                for i, k in _aligned(text, other):
                    pooled[i] = np.maximum(pooled[i], _POOLED * theirs[k])
        found.append(pooled)
    return found


def matched_terms(
    one: Sequence[Term], other: Sequence[Term], likeness: NDArray[np.float64]
) -> dict[int, int]:
    """For a registered term's index the matched asked one's: the likeliest pairs first, then those of one preposition."""
    pairs = sorted(
        (
            (
                likeness[i, j],
                one[i].relation == other[j].relation,
                one[i].role == other[j].role,
                -abs(i - j),
                i,
                j,
            )
            for i in range(len(one))
            for j in range(len(other))
            if likeness[i, j] >= _NO_MATCH
        ),
        reverse=True,
    )
    found: dict[int, int] = {}
    for *_, i, j in pairs:
        if i not in found and j not in found.values():
            found[i] = j
    return found


@lru_cache(maxsize=10_000)
def _aligned(one: Prompt, other: Prompt) -> tuple[tuple[int, int], ...]:
    """Terms of two texts of one meaning that stand for each other; a single one that is left over for the other."""
    terms, theirs = one.reading.terms, other.reading.terms
    acts, act = ([term.role == "action" for term in each] for each in (terms, theirs))
    found = matched_terms(terms, theirs, _likeness(one, other) * np.equal.outer(acts, act))
    for placed, role in product((False, True), ("action", "thing", "modifier")):
        left, there = (
            [
                index
                for index, term in enumerate(each)
                if index not in known
                and (term.role, bool(term.relation), term.describes) == (role, placed, False)
            ]
            for each, known in ((terms, found.keys()), (theirs, found.values()))
        )
        if len(left) == len(there) == 1:
            found[left[0]] = there[0]
    return tuple(
        (i, k)
        for i, k in found.items()
        if not (terms[i].living or theirs[k].living or _is_light(terms[i]) or _is_light(theirs[k]))
    )


def _likeness(registered: Prompt, asked: Prompt) -> NDArray[np.float64]:
    """Probability `[registered terms, asked terms]` that two terms mean the same."""
    near = registered.vectors @ asked.vectors.T
    found = np.zeros(near.shape)
    for row, one in enumerate(registered.reading.terms):
        for column, other in enumerate(asked.reading.terms):
            found[row, column] = _same(one, other, float(near[row, column]))
    return found


def _same(one: Term, other: Term, cosine: float) -> float:
    if one.group and other.group and lexicon().includes(one.group, other.group):
        return _SAME_WORD
    relation = wordnet().relation(other.lemmas, one.lemmas)
    if relation.same:
        return _SAME_WORD
    if one.group and other.group and lexicon().contrast(one.group, other.group):
        return 0.0
    if _is_typo(one, other):
        return _TYPO
    if one.role == "modifier" and one.word in other.word.split("-"):
        return _SAME_WORD
    role = "action" if one.role == "action" else "thing"
    *weights, bias = classifier_weights().synonyms[role]
    logit = sum(map(mul, weights, synonym_features(one, other, cosine)), bias)
    crossed = role != ("action" if other.role == "action" else "thing") or one.living != other.living
    related = relation.synonym or relation.narrower or relation.broader
    crossed = crossed or (not related and one.animal and other.animal)
    likely = max(1.0 / (1.0 + exp(-logit)), _SYNONYM * relation.synonym)
    if role == "thing" and not related:
        likely = min(likely, _UNRELATED)
    if _is_grown(other) and one.living and not one.animal and not one.group:
        likely = max(likely, _ROLE)
    return likely * (_CROSSED if crossed else 1.0)


def synonym_features(one: Term, other: Term, cosine: float) -> tuple[float, ...]:
    """How likely the words mean the same: by WordNet, and by the cosine of their vectors in context."""
    return *wordnet().relation(other.lemmas, one.lemmas).features, cosine


def _is_grown(term: Term) -> bool:
    """Whether a word says of a person no more than that it is a person, man or woman."""
    return term.group in ("person", "man", "woman")


def _is_typo(one: Term, other: Term) -> bool:
    """Whether a word that WordNet lacks is spelt nearly as the other, or both begin with the same seven letters."""
    if one.word[0] != other.word[0]:
        return False
    if len(one.word) >= 7 and one.word[:7] == other.word[:7]:
        return True
    alike = 0.75 if len(one.word) <= 5 else 0.8
    return not other.is_known and SequenceMatcher(None, one.word, other.word).ratio() >= alike


def _is_light(action: Term) -> bool:
    return any(base in _LIGHT_VERBS for base, _ in action.lemmas)
