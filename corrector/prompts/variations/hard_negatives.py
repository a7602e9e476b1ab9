"""Prompts near a prompt that mean something else: another action, place or noun, negated, roles exchanged, and more."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from corrector.prompts.variations.english import (
    PRONOUNS,
    Edit,
    determiner,
    edited,
    is_modifier,
    noun_edits,
    with_article,
)
from corrector.prompts.variations.lexicon import PLACE, lexicon, plural, stem
from corrector.prompts.variations.paraphrases import (
    FRONTED,
    clause_of,
    distinct,
    generator,
    letters,
    worded,
)
from corrector.prompts.variations.prompt_parsing import Mention, Reading, read

Difference = Literal[
    "action", "place", "noun", "negation", "swapped", "extra", "number", "missing", "relation", "given"
]
"""How a hard negative differs: another action, place or other noun; negated; roles exchanged; one more subject; another count;
a part left out; the same things related otherwise; not known, since it was given with the prompt."""


@dataclass(frozen=True)
class HardNegative:
    """A prompt close to another in its words, and different in what it shows."""

    text: str
    difference: Difference


_NEGATED_ORDERS = (
    *(
        "{subject} not {participle} {rest}",
        "nobody is {participle} {rest}",
        "{subject} who {be} not {participle} {rest}",
    ),
    *(
        "no one {participle} {rest}",
        "{subject} {rest}, not {participle}",
        "{subject} about to stop {participle} {rest}",
    ),
    *(
        "{subject} {third} nowhere, not {rest}",
        "{rest} without {subject}",
        "{subject} never {participle} {rest}",
    ),
)
_EXTRAS = (
    "{} and {other}",
    "{other} next to {}",
    "{}, with {other} beside",
    "{other} watching {}",
    "{} and {other} together",
)
_RELATIONS = ("next to", "under", "behind", "far from", "above", "in front of")
_COUNTS = ("two", "three", "four", "five", "six")
_ATTEMPTS = 40


def hard_negatives(prompt: str, limit: int = 100, seed: int = 0) -> tuple[HardNegative, ...]:
    """Up to `limit` prompts that differ from `prompt` in one thing that matters; the kinds of difference take turns."""
    rng = generator(prompt, "hard negatives", seed)
    reading = read(prompt)
    makers = {
        difference: maker
        for difference, maker in _MAKERS.items()
        if any(maker(reading, rng) for _ in range(_ATTEMPTS))
    }
    seen = {letters(reading.text)}
    found: dict[str, HardNegative] = {}
    for round_ in range(limit):
        before = len(seen)
        for difference, maker in makers.items():
            # Half keep the prompt's own words, so that only the difference distinguishes them from it.
            reworded = round_ % 2 == 0
            made = next(distinct(lambda: _negative(reading, rng, maker, reworded), 1, seen), None)  # noqa: B023
            if isinstance(made, _PlaceActs):
                made = _resting(made)
            if made is not None:
                found.setdefault(letters(made), HardNegative(made, difference))
        if len(seen) == before or len(seen) > limit:
            break
    return tuple(found.values())[:limit]


def _negative(
    reading: Reading, rng: Random, maker: Callable[[Reading, Random], str | None], reworded: bool
) -> str | None:
    changed = maker(reading, rng)
    if changed is None or not reworded:
        return changed
    return type(changed)(worded(read(changed), rng))


class _PlaceActs(str):
    """A text in which a place is the subject of the action; drawn like the others, so that later draws do not change."""

    __slots__ = ()


def _resting(text: str) -> str | None:
    """The text without the action: "grass on the person" for "a grass lying on the person"; None if that is no phrase."""
    reading = read(text)
    places = [mention for mention in reading.of("entity") if mention.domain == PLACE]
    actions = [action for action in reading.of("action") if action.shape in ("gerund", "participle")]
    if not places or len(reading.of("action")) != 1 or len(actions) != 1:
        return None
    place, action = places[0], actions[0]
    if place.relation or place.end > action.start or not FRONTED.match(text[action.end :].lstrip()):
        return None
    noun = text[place.start : place.end]
    return edited(text, [*noun_edits(reading, place, noun), (action.start, action.end, "")])


def _verbs(reading: Reading) -> list[Mention]:
    """The actions, and unknown words that look like one."""
    return [
        mention
        for mention in reading.of("action", "unknown")
        if mention.kind == "action" or _is_gerund(reading, mention)
    ]


def _nouns(reading: Reading) -> list[Mention]:
    """The entities, and unknown words that may be one."""
    return [
        mention
        for mention in reading.of("entity", "unknown")
        if mention.kind == "entity" or not _is_gerund(reading, mention)
    ]


def _is_gerund(reading: Reading, mention: Mention) -> bool:
    return reading.text[mention.start : mention.end].lower().endswith("ing")


def _phrase(reading: Reading, mention: Mention) -> tuple[int, int]:
    """Where a noun's preposition, determiner and adjectives begin, and where its determiner ends."""
    start, end = determiner(reading, mention)
    return min(start, mention.relation_start), end


def _other_action(reading: Reading, rng: Random) -> str | None:
    known = lexicon()
    actions = _verbs(reading)
    if not actions:
        return None
    mention = rng.choice(actions)
    families = [mention.domain] if mention.domain and rng.random() < 0.7 else list(known.actions)
    groups = [
        forms
        for family in families
        for group, forms in known.actions[family].items()
        if known.contrast(group, mention.group)
    ]
    if not groups:
        return None
    form = rng.choice(rng.choice(groups)[:3])
    word = form.third if mention.shape == "third" else form.participle
    return word and edited(reading.text, [(mention.start, mention.end, word)])


def _other_place(reading: Reading, rng: Random) -> str | None:
    known = lexicon()
    places = [mention for mention in reading.of("entity") if mention.domain == PLACE]
    if not places:
        return None
    mention = rng.choice(places)
    groups = [name for name in known.places if known.contrast(name, mention.group)]
    phrase = rng.choice(known.places[rng.choice(groups)][:2])
    if mention.relation:
        return edited(reading.text, [(mention.relation_start, mention.end, phrase)])
    return edited(reading.text, noun_edits(reading, mention, phrase.rsplit(" ", 1)[-1]))


def _other_noun(reading: Reading, rng: Random) -> str | None:
    known = lexicon()
    mentions = [mention for mention in _nouns(reading) if mention.domain != PLACE]
    if not mentions:
        return None
    mention = rng.choice(mentions)
    domain = mention.domain or rng.choice(("living", "thing"))
    groups = [name for name in known.nouns[domain] if known.contrast(name, mention.group)]
    if not groups:
        return None
    noun = rng.choice(known.nouns[domain][rng.choice(groups)])
    return edited(reading.text, noun_edits(reading, mention, noun))


def _negated(reading: Reading, rng: Random) -> str | None:
    clause = clause_of(reading.text)
    if clause is not None:
        return edited(rng.choice(_NEGATED_ORDERS).format(**vars(clause)), [])
    verbs, nouns = _verbs(reading), _nouns(reading)
    if verbs and (rng.random() < 0.5 or not nouns):
        return edited(reading.text, [(verbs[0].start, verbs[0].start, "not ")])
    if not nouns:
        return None
    mention = nouns[0]
    word = rng.choice(("no ", "without ", "not a "))
    written = reading.text[mention.start : mention.end].lower()
    if word == "not a " and (mention.plural or written in lexicon().no_article):
        word = "not "
    start, end = _phrase(reading, mention)
    return edited(reading.text, [(start, end, word)])


def _swapped(reading: Reading, rng: Random) -> str | None:
    mentions = _nouns(reading)
    if len(mentions) < 2:
        return None
    first, second = sorted(rng.sample(mentions, 2), key=lambda mention: mention.start)
    if first.group == second.group or _coordinated(reading.text[first.end : second.start]):
        return None
    texts = [reading.text[mention.start : mention.end] for mention in (first, second)]
    edits = [(first.start, first.end, texts[1]), (second.start, second.end, texts[0])]
    if (first.domain == PLACE) != (second.domain == PLACE):
        return _PlaceActs(edited(reading.text, edits))
    spans = [determiner(reading, mention) for mention in (first, second)]
    words = [reading.text[start:end] for start, end in spans]
    if any(mention.plural for mention in (first, second)) or len({bool(each) for each in words}) > 1:
        # "A man watching two dogs": the article and the count move with their nouns.
        edits += [(*spans[0], words[1].lower()), (*spans[1], words[0].lower())]
        if any(verb.shape == "third" for verb in reading.of("action")):
            return None
    return edited(reading.text, edits)


def _coordinated(between: str) -> bool:
    """Whether the order of two nouns with this text between them does not matter: a cat "and a" dog."""
    return re.fullmatch(r"(?:\W|\b(?:and|or|an?|the)\b)*", between) is not None


def _with_extra(reading: Reading, rng: Random) -> str | None:
    known = lexicon()
    present = {mention.group for mention in reading.mentions}
    living = known.nouns["living"]
    groups = [name for name in living if all(known.contrast(name, group) for group in present)]
    subjects = [mention for mention in reading.of("entity") if mention.relation == ""]
    if not subjects:
        return None
    subject = subjects[0]
    noun = rng.choice(living[rng.choice(groups)])
    other = noun if noun in PRONOUNS else f"{with_article(noun)} {noun}"
    # Articles and counts stay before their nouns: "three children", not "three a fox next to children".
    start = min(determiner(reading, subject)[0], subject.phrase_start)
    made = rng.choice(_EXTRAS).format(reading.text[start : subject.end], other=other)
    return edited(reading.text, [(start, subject.end, made)])


def _other_number(reading: Reading, rng: Random) -> str | None:
    counts = reading.of("number")
    if counts:
        others = [count for count in _COUNTS if count != counts[0].group]
        return edited(reading.text, [(*_count(reading, counts[0]), rng.choice(others))])
    subjects = [
        mention for mention in reading.of("entity") if mention.domain == "living" and not mention.plural
    ]
    if not subjects:
        return None
    subject = rng.choice(subjects)
    noun = reading.text[subject.start : subject.end]
    if noun.lower() in PRONOUNS:
        noun = "person"
    start, end = determiner(reading, subject)
    edits = [(subject.start, subject.end, plural(noun)), (start, end, f"{rng.choice(_COUNTS)} ")]
    if is_modifier(reading, subject):
        return None
    return edited(reading.text, edits + _plural_verb(reading, subject))


def _count(reading: Reading, count: Mention) -> tuple[int, int]:
    """Characters [start, end) of a count, with the rest of "a group of"."""
    whole = re.compile(r"(?:\ban? )?\S+ of\b", re.IGNORECASE)
    for start in (count.start - 2, count.start):
        found = whole.match(reading.text, max(start, 0))
        if found and found.end() == count.end + 3:
            return found.span()
    return count.start, count.end


def _plural_verb(reading: Reading, subject: Mention) -> list[Edit]:
    """Edits that put the verb directly after a subject into the plural: "is", "lies"."""
    behind = re.compile(r"(?: who| that| which)? (is|has|was)\b").match(reading.text, subject.end)
    if behind:
        several = {"is": "are", "has": "have", "was": "were"}[behind[1]]
        return [(behind.start(1), behind.end(1), several)]
    return [
        (verb.start, verb.end, stem(reading.text[verb.start : verb.end]))
        for verb in reading.of("action")
        if verb.shape == "third" and verb.start == subject.end + 1
    ]


def _incomplete(reading: Reading, rng: Random) -> str | None:
    mentions = reading.of("action", "entity", "unknown", "number")
    if len(mentions) < 2:
        return None
    mention = rng.choice(mentions)
    start, end = mention.phrase_start, mention.end
    if mention.kind == "number":
        start, end = _count(reading, mention)
    elif mention in _nouns(reading):
        start, _ = _phrase(reading, mention)
    behind = re.compile(r" of\b").match(reading.text, end)  # the coffee of "a cup of coffee"
    left = edited(reading.text, [(start, behind.end() if behind else end, "")])
    return left if len(left.split()) > 1 else None


def _other_relation(reading: Reading, rng: Random) -> str | None:
    placed = [mention for mention in reading.of("entity") if mention.relation == "at"]
    if not placed:
        return None
    mention = rng.choice(placed)
    noun = reading.text[mention.start : mention.end]
    return edited(reading.text, [(mention.phrase_start, mention.end, f"{rng.choice(_RELATIONS)} the {noun}")])


_MAKERS: dict[Difference, Callable[[Reading, Random], str | None]] = {
    "action": _other_action,
    "place": _other_place,
    "noun": _other_noun,
    "negation": _negated,
    "swapped": _swapped,
    "extra": _with_extra,
    "number": _other_number,
    "missing": _incomplete,
    "relation": _other_relation,
}
