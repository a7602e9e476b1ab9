"""Other wordings of a prompt, and prompts near it that mean something else: text only, from the lexicon and templates.

Made for training and calibrating what must tell the two apart, and for drawing what a correction must leave alone. A prompt is
split into who, doing what, and where; words that the lexicon does not have stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Literal

from corrector.prompts.concepts import Mention, Reading, read
from corrector.prompts.lexicon import PLACE, lexicon, plural
from corrector.prompts.wording import Part, belongs, choices, clause_of, edited, worded

Difference = Literal[
    "action", "place", "noun", "negation", "swapped", "extra", "number", "missing", "relation"
]
"""How a hard negative differs: another action, place or other noun; negated; roles exchanged; one more subject; another count;
a part left out; the same things related otherwise."""


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


def paraphrases(prompt: str, limit: int = 50, part: Part = "all", seed: int = 0) -> tuple[str, ...]:
    """Up to `limit` different wordings of `prompt`, without the prompt itself; the same arguments give the same texts.

    Synonyms of action, place and nouns (a word for a kind of it too: a man for a person), order of words, tense, articles,
    and openings such as "a photo of".
    """
    rng = _rng(prompt, "paraphrases", part, seed)
    reading = read(prompt)
    return tuple(_distinct(lambda: worded(reading, part, rng), limit, {_key(reading.text)}))


def hard_negatives(
    prompt: str, limit: int = 100, part: Part = "all", seed: int = 0
) -> tuple[HardNegative, ...]:
    """Up to `limit` prompts that differ from `prompt` in one thing that matters, every kind of difference in turn."""
    rng = _rng(prompt, "hard negatives", part, seed)
    reading = read(prompt)
    makers = {
        difference: maker
        for difference, maker in _MAKERS.items()
        if any(maker(reading, part, rng) for _ in range(_ATTEMPTS))
    }
    seen = {_key(reading.text)}
    found: list[HardNegative] = []
    for round_ in range(limit):
        before = len(found)
        for difference, maker in makers.items():
            # Half of them in the prompt's own words: nothing but the difference gives those away.
            wording: Part | None = None if round_ % 2 else part
            made = next(_distinct(lambda: _negative(reading, part, rng, maker, wording), 1, seen), None)  # noqa: B023
            if made is not None:
                found.append(HardNegative(made, difference))
        if len(found) == before or len(found) >= limit:
            break
    return tuple(found[:limit])


def _rng(prompt: str, purpose: str, part: Part, seed: int) -> Random:
    return Random(f"{prompt}/{purpose}/{part}/{seed}")


def _key(text: str) -> str:
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def _distinct(make: Callable[[], str | None], limit: int, seen: set[str]) -> Iterator[str]:
    """Texts of `make` that are not yet among `seen`, until it has brought nothing new `_ATTEMPTS` times running."""

    def new() -> Iterator[str]:
        failures = 0
        while failures < _ATTEMPTS:
            text = make()
            if text is None or _key(text) in seen:
                failures += 1
                continue
            failures = 0
            seen.add(_key(text))
            yield text

    return islice(new(), limit)


def _negative(
    reading: Reading,
    part: Part,
    rng: Random,
    maker: Callable[[Reading, Part, Random], str | None],
    wording: Part | None,
) -> str | None:
    changed = maker(reading, part, rng)
    if changed is None or wording is None:
        return changed
    return worded(read(changed), wording, rng)


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


def _other_action(reading: Reading, part: Part, rng: Random) -> str | None:
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
        if known.contrast(group, mention.group) and belongs(group, part)
    ]
    if not groups:
        return None
    form = rng.choice(rng.choice(groups)[:3])
    word = form.third if mention.shape == "third" else form.participle
    return word and edited(reading.text, [(mention.start, mention.end, word)])


def _other_place(reading: Reading, part: Part, rng: Random) -> str | None:
    known = lexicon()
    places = [mention for mention in reading.of("entity") if mention.domain == PLACE]
    if not places:
        return None
    mention = rng.choice(places)
    groups = [name for name in known.places if known.contrast(name, mention.group) and belongs(name, part)]
    phrase = rng.choice(known.places[rng.choice(groups)][:2])
    start = mention.phrase_start if mention.relation else mention.start
    if not mention.relation:
        phrase = phrase.rsplit(" ", 1)[-1]
    return edited(reading.text, [(start, mention.end, phrase)])


def _other_noun(reading: Reading, part: Part, rng: Random) -> str | None:
    known = lexicon()
    mentions = [mention for mention in _nouns(reading) if mention.domain != PLACE]
    if not mentions:
        return None
    mention = rng.choice(mentions)
    domain = mention.domain or rng.choice(("living", "thing"))
    groups = [
        name for name in known.nouns[domain] if known.contrast(name, mention.group) and belongs(name, part)
    ]
    if not groups:
        return None
    noun = rng.choice(known.nouns[domain][rng.choice(groups)])
    return edited(reading.text, [(mention.start, mention.end, plural(noun) if mention.plural else noun)])


def _negated(reading: Reading, part: Part, rng: Random) -> str | None:
    clause = clause_of(reading.text)
    if clause is not None and (orders := choices(_NEGATED_ORDERS, part)):
        return edited(rng.choice(orders).format(**vars(clause)), [])
    verbs, nouns = _verbs(reading), _nouns(reading)
    if verbs and (rng.random() < 0.5 or not nouns):
        return edited(reading.text, [(verbs[0].start, verbs[0].start, "not ")])
    if not nouns:
        return None
    mention = nouns[0]
    word = rng.choice(choices(("no ", "without ", "not a "), part) or ["no "])
    return edited(reading.text, [(mention.phrase_start, mention.start, word)])


def _swapped(reading: Reading, part: Part, rng: Random) -> str | None:
    del part
    mentions = _nouns(reading)
    if len(mentions) < 2:
        return None
    first, second = sorted(rng.sample(mentions, 2), key=lambda mention: mention.start)
    if first.group == second.group or _coordinated(reading.text[first.end : second.start]):
        return None
    words = [reading.text[mention.start : mention.end] for mention in (first, second)]
    return edited(reading.text, [(first.start, first.end, words[1]), (second.start, second.end, words[0])])


def _coordinated(between: str) -> bool:
    """Whether what stands between two nouns makes their order meaningless: a cat "and a" dog."""
    return re.fullmatch(r"(?:\W|\b(?:and|or|an?|the)\b)*", between) is not None


def _with_extra(reading: Reading, part: Part, rng: Random) -> str | None:
    known = lexicon()
    present = {mention.group for mention in reading.mentions}
    living = known.nouns["living"]
    groups = [
        name
        for name in living
        if all(known.contrast(name, group) for group in present) and belongs(name, part)
    ]
    templates = choices(_EXTRAS, part)
    subjects = [mention for mention in reading.of("entity") if mention.relation == ""]
    if not subjects or not templates:
        return None
    subject = subjects[0]
    noun = f"a {rng.choice(living[rng.choice(groups)])}"
    # A count belongs to what it counts: "three children", not "three a fox next to children".
    counts = (count.start for count in reading.of("number") if count.end + 1 == subject.phrase_start)
    start = next(counts, subject.phrase_start)
    made = rng.choice(templates).format(reading.text[start : subject.end], other=noun)
    return edited(reading.text, [(start, subject.end, made)])


def _other_number(reading: Reading, part: Part, rng: Random) -> str | None:
    counts = reading.of("number")
    if counts:
        others = choices([count for count in _COUNTS if count != counts[0].group], part)
        return (
            edited(reading.text, [(counts[0].start, counts[0].end, rng.choice(others))]) if others else None
        )
    subjects = [
        mention for mention in reading.of("entity") if mention.domain == "living" and not mention.plural
    ]
    others = choices(_COUNTS, part)
    if not subjects or not others:
        return None
    subject = rng.choice(subjects)
    noun = reading.text[subject.start : subject.end]
    if noun.lower() in ("someone", "somebody"):
        noun = "person"
    start = subject.start if subject.relation else subject.phrase_start
    return edited(reading.text, [(start, subject.end, f"{rng.choice(others)} {plural(noun)}")])


def _incomplete(reading: Reading, part: Part, rng: Random) -> str | None:
    del part
    mentions = reading.of("action", "entity", "unknown", "number")
    if len(mentions) < 2:
        return None
    mention = rng.choice(mentions)
    left = edited(reading.text, [(mention.phrase_start, mention.end, "")])
    return left if len(left.split()) > 1 else None


def _other_relation(reading: Reading, part: Part, rng: Random) -> str | None:
    placed = [mention for mention in reading.of("entity") if mention.relation == "at"]
    relations = choices(_RELATIONS, part)
    if not placed or not relations:
        return None
    mention = rng.choice(placed)
    noun = reading.text[mention.start : mention.end]
    return edited(reading.text, [(mention.phrase_start, mention.end, f"{rng.choice(relations)} the {noun}")])


_MAKERS: dict[Difference, Callable[[Reading, Part, Random], str | None]] = {
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
