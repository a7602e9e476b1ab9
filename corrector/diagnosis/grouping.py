"""near_identical: groups prompts that differ in spelling, not in meaning."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from corrector.values import visible_text

MIN_SIMILARITY = 0.9
"""Least Jaccard index of the words of two prompts of one group. Shorter prompts than ten words have the same words."""
_ARTICLES = frozenset(("a", "an", "the"))
_NEGATIONS = frozenset(("not", "no", "without", "never", "nobody", "nothing"))
_WORD = re.compile(r"\w+(?:['’-]\w+)*")


def near_identical(prompts: Iterable[str]) -> list[tuple[str, ...]]:
    """Groups of the distinct `prompts`, in the order of each group's first, which stands for the group.

    Two prompts are near-identical if their words are the same in the same order, without case, punctuation and articles; or if
    the Jaccard index of their sets of words is at least `MIN_SIMILARITY` and both have the same negations. One word more or
    less in a prompt of ten is such a difference; "lying" in place of "standing" in a short prompt is not. A prompt is compared
    with the first of each group. Prompts that differ in case and spacing only are one; the first spelling is kept.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    seen: set[str] = set()
    for prompt in prompts:
        plain = " ".join(unicodedata.normalize("NFKC", visible_text(prompt)).casefold().split())
        if plain in seen:
            continue
        seen.add(plain)
        words = tuple(word for word in _WORD.findall(plain) if word not in _ARTICLES) or (plain,)
        group = groups.get(words) or next((groups[key] for key in groups if _similar(key, words)), None)
        if group is None:
            groups[words] = [prompt]
        else:
            group.append(prompt)
    return [tuple(group) for group in groups.values()]


def _similar(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    short, long = sorted((len(one), len(other)))
    if short < MIN_SIMILARITY * long or long < 1 / (1 - MIN_SIMILARITY) - 1e-9:
        return False
    words, others = set(one), set(other)
    if words & _NEGATIONS != others & _NEGATIONS:
        return False
    return len(words & others) >= MIN_SIMILARITY * len(words | others)
