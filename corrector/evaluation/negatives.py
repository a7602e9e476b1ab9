"""Which hard negatives are drawn: prompts that a router may take for the corrected one, and that mean something else."""

from __future__ import annotations

from difflib import SequenceMatcher
from functools import lru_cache
from itertools import zip_longest

from corrector.prompts import FailingPrompt
from corrector.prompts.variations import Difference, HardNegative, hard_negatives
from corrector.prompts.variations.lexicon import lexicon
from corrector.prompts.variations.reading import read

_DIFFERENCES: tuple[Difference, ...] = ("action", "noun", "place", "swapped")
_AFTER_THESE: tuple[Difference, ...] = ("number", "extra")
_CANDIDATES = 90


@lru_cache(maxsize=4096)
def likely_negatives(entry: FailingPrompt, count: int) -> tuple[HardNegative, ...]:
    """Up to `count` hard negatives of the prompt, each kind of difference in turn; the same entry gives the same ones.

    Of every kind those come first that share most words with the prompt, in its order: a text embedding puts them
    nearest to it, so they are what a router confuses, and no change of style blurs what the adapter does to them.

    Kinds are left out whose picture is undefined, so that nothing could be called harm: a negation (what is to be seen
    where nobody lies on the grass?), a part left out (the corrected picture is a right answer to it), another relation
    to a place (under the grass), a place that may hold the prompt's own (in the park), and an exchange of anything but
    living beings (the grass lying on a person). Another number and one more subject come only when the other kinds are
    used up: they contain what the base fails at, so that what the adapter changes there may be mended as well as harmed,
    and small bases draw neither.

    Guard prompts and paraphrases are left out, in other words too: the scorecard has figures of their own for them.
    """
    if count == 0:
        return ()
    known = {_meaning(text) for text in (entry.prompt, *entry.paraphrases, *entry.guard_prompts)}
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
    return tuple([negative for turn in turns for negative in turn if negative is not None][:count])


def _meaning(text: str) -> tuple[object, ...]:
    """Equal for two texts that say the same by the lexicon, in the same order."""
    reading = read(text)
    said = ((m.kind, m.group, m.relation, m.plural) for m in reading.mentions)
    return (*said, *reading.quoted)


def _distance(prompt: str, text: str) -> tuple[bool, int]:
    """Whether another sort of thing is said (not another pose, but "dressed in"), then how many words are changed."""
    sorts = ([(m.kind, m.domain, m.shape) for m in read(each).mentions] for each in (prompt, text))
    words, others = prompt.lower().split(), text.lower().split()
    edits = SequenceMatcher(None, words, others, autojunk=False).get_opcodes()
    changed = sum(
        max(end - start, other - first) for tag, start, end, first, other in edits if tag != "equal"
    )
    return len(set(map(tuple, map(sorted, sorts)))) > 1, changed


def _is_picture(prompt: str, negative: HardNegative) -> bool:
    """Whether the negative has a picture of its own, as far as its kind does not say so already."""
    one, other = (read(text).mentions for text in (prompt, negative.text))
    if negative.difference == "place":
        return {m.group for m in other}.isdisjoint(lexicon().surroundings - {m.group for m in one})
    if negative.difference == "swapped":
        lifeless = ([(m.group, m.relation) for m in each if m.domain != "living"] for each in (one, other))
        return next(lifeless) == next(lifeless)
    return True
