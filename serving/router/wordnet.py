"""Relations between English words by WordNet: synonyms, kinds of a thing or action, opposites, and base forms.

`wordnet.txt.gz` holds WordNet 3.0 without proper nouns and definitions; `python -m tests.benchmarks.wordnet_table` makes it.
WordNet is copyright of Princeton University; its licence is in `WORDNET-LICENSE`.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

Lemma = tuple[str, str]
"""A base form and its part of speech: "n", "v" or "a"."""

_ANIMALS, _LIVING, _BODY = frozenset((5,)), frozenset((5, 18)), frozenset((8,))
"""Lexicographer files of animals, of animals and people, and of parts of the body (lexnames(5WN))."""
_MEASURES = frozenset((14, 23))
"""Likewise of groups and quantities."""
_VERBS = 29
"""The first lexicographer file of verbs; those of nouns have smaller numbers."""

_SENSES = 8
"""Senses of a word that count, the commonest first."""
_ENDINGS = {
    "n": (
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
    ),
    "v": (
        ("ies", "y"),
        ("es", "e"),
        ("es", ""),
        ("ed", "e"),
        ("ed", ""),
        ("ing", "e"),
        ("ing", ""),
        ("s", ""),
    ),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
}
"""WordNet's rules of detachment (morphy): endings, and what takes their place."""


@dataclass(frozen=True)
class Relation:
    """How a word relates to another; each attribute from 0 (not) to 1 (in both words' commonest sense).

    Attributes:
        same: They share a base form.
        synonym: They share a meaning.
        narrower: The word is a kind of the other one: "alpinist" of "climber".
        broader: The other one is a kind of the word.
        sibling: Both are kinds of one thing, and none of the above.
        opposite: WordNet calls them opposites.
    """

    same: float = 0.0
    synonym: float = 0.0
    narrower: float = 0.0
    broader: float = 0.0
    sibling: float = 0.0
    opposite: float = 0.0

    @property
    def features(self) -> tuple[float, ...]:
        return self.same, self.synonym, self.narrower, self.broader, self.sibling, self.opposite


@dataclass(frozen=True)
class _Profile:
    """The senses of a word with their ranks, the synsets above them with rank and distance, their parents and opposites."""

    senses: dict[int, float]
    above: dict[int, float]
    parents: frozenset[int]
    opposites: frozenset[int]


class WordNet:
    """WordNet's synsets by number; thread-safe."""

    def __init__(self) -> None:
        self._files: list[int] = []
        self._above: list[tuple[int, ...]] = []
        self._opposites: list[tuple[int, ...]] = []
        self._senses: dict[Lemma, list[tuple[int, int]]] = {}
        self._irregular: dict[Lemma, list[str]] = {}
        text = gzip.decompress(Path(__file__).with_name("wordnet.txt.gz").read_bytes()).decode()
        for number, line in enumerate(text.splitlines()):
            kind, above, opposites, *words = line.split(" ")
            if kind[0] == "x":
                self._irregular.setdefault((above, kind[1]), []).append(opposites)
                continue
            self._files.append(int(kind[1:]))
            self._above.append(tuple(number - int(step) for step in above.split(",") if step))
            self._opposites.append(tuple(number - int(step) for step in opposites.split(",") if step))
            for word in filter(None, words):
                name, _, rank = word.partition(":")
                self._senses.setdefault((name, kind[0]), []).append((int(rank or 0), number))
        for senses in self._senses.values():
            senses.sort()
        self.lemmas = lru_cache(50_000)(self._lemmas)
        self.relation = lru_cache(100_000)(self._relation)
        self._profile = lru_cache(20_000)(self._profiled)

    def __contains__(self, lemma: Lemma) -> bool:
        return lemma in self._senses

    def is_living(self, lemmas: Sequence[Lemma]) -> bool:
        """Whether a noun's first meaning is a person or an animal; its second one for animals and nouns in -er: "climber"."""
        if self._is_in(_LIVING, lemmas):
            return True
        agent = any(base.endswith(("er", "or")) for base, _ in lemmas)
        return self._is_in(_LIVING if agent else _ANIMALS, lemmas, 2) and not self.is_body_part(lemmas)

    def is_measure(self, lemmas: Sequence[Lemma]) -> bool:
        """Whether one of a noun's first two meanings is a group or a quantity."""
        return self._is_in(_MEASURES, lemmas, 2)

    def is_animal(self, lemmas: Sequence[Lemma]) -> bool:
        """Whether a noun's first meaning is an animal."""
        return self._is_in(_ANIMALS, lemmas)

    def is_body_part(self, lemmas: Sequence[Lemma]) -> bool:
        """Whether a noun's first meaning is a part of the body."""
        return self._is_in(_BODY, lemmas)

    def _is_in(self, files: frozenset[int], lemmas: Sequence[Lemma], first: int = 1) -> bool:
        senses = [self._senses.get(lemma, ())[:first] for lemma in lemmas if lemma[1] == "n"]
        return any(self._files[sense] in files for each in senses for _, sense in each)

    def _lemmas(self, word: str) -> tuple[Lemma, ...]:
        """The base forms of a word in lower case; collocations have "_" between their words."""
        found: dict[Lemma, None] = {}
        for part in "nva":
            irregular = self._irregular.get((word, part), [])
            bases = [*irregular, word]
            if part == "n" and not irregular:
                bases += [f"{word[:-3]}y"] if word.endswith("ies") else []
                bases += [word[:-1]] if word.endswith("s") and not word.endswith("ss") else []
            for ending, ours in () if irregular else _ENDINGS[part]:
                if word.endswith(ending) and len(word) > len(ending) + 1:
                    base = word.removesuffix(ending) + ours
                    bases.append(base)
                    if not ours and len(base) > 2 and base[-1] == base[-2]:
                        bases.append(base[:-1])
            found.update(dict.fromkeys((base, part) for base in bases if (base, part) in self._senses))
        return tuple(found)

    def _profiled(self, lemmas: tuple[Lemma, ...]) -> _Profile:
        senses: dict[int, float] = {}
        for lemma in lemmas:
            for rank, sense in self._senses.get(lemma, ())[:_SENSES]:
                senses[sense] = min(senses.get(sense, 99.0), rank)
        above: dict[int, float] = {}
        for sense, cost in senses.items():
            if (
                cost > 0 and self._files[sense] < _VERBS
            ):  # a tractor may be a kind of truck, but hardly ever is
                continue
            level = {sense}
            while level := {up for each in level for up in self._above[each]} - {sense}:
                cost += 1.5
                if cost > 15:
                    break
                for each in level:
                    above[each] = min(above.get(each, 99.0), cost)
        parents = frozenset(up for sense in senses for up in self._above[sense])
        opposites = frozenset(
            far for sense in senses for each in (sense, *self._above[sense]) for far in self._opposites[each]
        )
        return _Profile(senses, above, parents, opposites)

    def _relation(self, word: tuple[Lemma, ...], other: tuple[Lemma, ...]) -> Relation:
        """How the word with the base forms `word` relates to `other`."""
        ours, theirs = {base for base, _ in word}, {base for base, _ in other}
        if ours & theirs:
            return Relation(same=1.0)
        undone = any(f"un{base}" in theirs for base in ours) or any(f"un{base}" in ours for base in theirs)
        one, two = self._profile(word), self._profile(other)
        synonym = _strength(one.senses, two.senses)
        narrower, broader = _strength(one.above, two.senses), _strength(one.senses, two.above)
        related = synonym or narrower or broader
        return Relation(
            synonym=synonym,
            narrower=narrower,
            broader=broader,
            sibling=0.0 if related else float(bool(one.parents & two.parents)),
            opposite=float(
                undone or not one.opposites.isdisjoint(two.senses) or not two.opposites.isdisjoint(one.senses)
            ),
        )


def _strength(one: dict[int, float], other: dict[int, float]) -> float:
    """From 0 where the synsets share none to 1 where both name their first."""
    if len(other) < len(one):
        one, other = other, one
    costs = [cost + other[each] for each, cost in one.items() if each in other]
    return float(0.75 ** min(costs)) if costs else 0.0


@lru_cache(maxsize=1)
def wordnet() -> WordNet:
    return WordNet()
