"""Chooses the hard negatives that are sampled: prompts that a router may confuse with the corrected one."""

from __future__ import annotations

from difflib import SequenceMatcher
from functools import lru_cache
from itertools import zip_longest

from corrector.prompts import FailingPrompt
from corrector.prompts.variations import Difference, HardNegative, hard_negatives
from corrector.prompts.variations.lexicon import lexicon
from corrector.prompts.variations.prompt_parsing import read

_DIFFERENCES: tuple[Difference, ...] = ("action", "noun", "place", "swapped")
_AFTER_THESE: tuple[Difference, ...] = ("number", "extra")
_CANDIDATES = 90


@lru_cache(maxsize=4096)
def likely_negatives(entry: FailingPrompt, count: int) -> tuple[HardNegative, ...]:
    """Up to `count` hard negatives of the prompt: those that are given with it, then others, each kind of difference in turn.

    The same entry gives the same ones.

    Within a kind, the texts that share most words with the prompt in the same order come first: their text embeddings are
    nearest to the prompt's, so a router confuses them most.

    Kinds without a defined picture are left out, because harm to them cannot be measured: a negation, a part left out
    (the corrected picture is right for it), another relation to a place (under the grass), a place that may contain the
    prompt's own (in the park), and an exchange of lifeless things (the grass lying on a person). Another number and one more
    subject come last: they contain what the base fails at, so the adapter may correct them, and small bases draw neither.

    Guard prompts and paraphrases are left out, also in other words: the scorecard measures them separately.
    """
    if count == 0:
        return ()
    given = [HardNegative(text, "given") for text in entry.hard_negatives]
    given.sort(key=lambda negative: _distance(entry.prompt, negative.text))
    if len(given) >= count:
        return tuple(given[:count])
    said = (entry.prompt, *entry.paraphrases, *entry.guard_prompts, *entry.hard_negatives)
    known = {_meaning(text) for text in said}
    found = [
        negative
        for negative in hard_negatives(entry.prompt, _CANDIDATES)
        if _is_picture(entry.prompt, negative)
    ]
    found.sort(key=lambda negative: _distance(entry.prompt, negative.text))
    by_difference: dict[Difference, list[HardNegative]] = {
        difference: [] for difference in (*_DIFFERENCES, *_AFTER_THESE)
    }
    for negative in found:
        meaning = _meaning(negative.text)
        if negative.difference in by_difference and meaning not in known:
            known.add(meaning)
            by_difference[negative.difference].append(negative)
    turns = (
        turn
        for differences in (_DIFFERENCES, _AFTER_THESE)
        for turn in zip_longest(*(by_difference[difference] for difference in differences))
    )
    others = (negative for turn in turns for negative in turn if negative is not None)
    return tuple([*given, *others][:count])


def _meaning(text: str) -> tuple[object, ...]:
    """A key that is equal for texts with the same meaning in the lexicon, in the same order."""
    reading = read(text)
    said = ((m.kind, m.group, m.relation, m.plural) for m in reading.mentions)
    return (*said, *reading.quoted)


def _distance(prompt: str, text: str) -> tuple[bool, int]:
    """Whether the texts name different sorts of things ("dressed in" and a pose), and how many words differ."""
    sorts = ([(m.kind, m.domain, m.shape) for m in read(each).mentions] for each in (prompt, text))
    words, others = prompt.lower().split(), text.lower().split()
    edits = SequenceMatcher(None, words, others, autojunk=False).get_opcodes()
    changed = sum(
        max(end - start, other - first) for tag, start, end, first, other in edits if tag != "equal"
    )
    return len(set(map(tuple, map(sorted, sorts)))) > 1, changed


def _is_picture(prompt: str, negative: HardNegative) -> bool:
    """Whether a negative of a kind that may have a defined picture has one."""
    one, other = (read(text).mentions for text in (prompt, negative.text))
    if negative.difference == "place":
        return {m.group for m in other}.isdisjoint(lexicon().surroundings - {m.group for m in one})
    if negative.difference == "swapped":
        lifeless = ([(m.group, m.relation) for m in each if m.domain != "living"] for each in (one, other))
        return next(lifeless) == next(lifeless)
    return True
