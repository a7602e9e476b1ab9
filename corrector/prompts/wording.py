"""A prompt in other words: synonyms, order of words, articles, and what surrounds a prompt without changing it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from corrector.prompts.concepts import Mention, Reading, read
from corrector.prompts.lexicon import PLACE, lexicon, plural

Part = Literal["all", "training", "calibration"]
"""Which synonyms and templates may appear: those of "training" and of "calibration" have none in common, save the prompt's own
words and the empty template."""


# Subject, participle, third person, rest: a person | lying | lies | on the grass.
_ORDERS = (
    *("{subject} {be} {participle} {rest}", "{rest} {third} {subject}", "{participle} {rest}, {subject}"),
    *(
        "{subject} {third} {rest}",
        "{rest}, {subject} {participle}",
        "{subject} that {be} {participle} {rest}",
    ),
    *("{rest} {be} {subject} {participle}", "{subject}, {participle} {rest}"),
)


def worded(reading: Reading, part: Part, rng: Random) -> str:
    edits = []
    for mention in reading.of("action", "entity"):
        alternatives = choices(_synonyms(reading, mention), part)
        # In the calibration part every text should hold something that training never saw.
        if alternatives and rng.random() < (0.75 if part == "calibration" else 0.5):
            whole = mention.domain == PLACE and mention.relation == "at" and not mention.plural
            edits.append(
                (mention.phrase_start if whole else mention.start, mention.end, rng.choice(alternatives))
            )
    text = plain = edited(reading.text, edits)
    if rng.random() < 0.4 and (orders := choices(_ORDERS, part)):
        text = _reordered(text, rng.choice(orders)) or text
    # "A photo of" goes before a subject, not before "on the grass lies a person" or "a person lies".
    opened = text == plain
    if rng.random() < 0.25:
        text = rng.choice((_without_articles, _with_definite_articles))(text)
    if rng.random() < 0.3 and (adjectives := choices(lexicon().adjectives, part)):
        text = _described(text, rng.choice(adjectives))
    if opened and rng.random() < 0.6 and (openings := choices(lexicon().openings, part)):
        text = f"{rng.choice(openings)} {text}"
    if rng.random() < 0.4 and (closings := choices(lexicon().closings, part)):
        text = f"{text} {rng.choice(closings)}".replace(" ,", ",")
    return text


def _described(text: str, adjective: str) -> str:
    """`text` with the adjective before its first noun that no preposition governs."""
    nouns = [mention for mention in read(text).of("entity") if not mention.relation]
    if not nouns or text[nouns[0].start : nouns[0].end].lower() in ("someone", "somebody"):
        return text
    return edited(text, [(nouns[0].start, nouns[0].start, f"{adjective} ")])


def _synonyms(reading: Reading, mention: Mention) -> list[str]:
    known = lexicon()
    written = reading.text[mention.start : mention.end].lower()
    if mention.kind == "action":
        forms = known.actions[mention.domain][mention.group]
        if mention.shape in ("gerund", "participle"):
            words = [form.participle for form in forms]
        else:
            words = [form.third for form in forms if form.third and mention.shape == "third"]
    elif mention.domain == PLACE:
        words = list(known.places[mention.group]) if mention.relation == "at" and not mention.plural else []
        written = reading.text[mention.phrase_start : mention.end].lower()
    else:
        groups = known.nouns[mention.domain]
        words = [word for group in groups if known.includes(mention.group, group) for word in groups[group]]
        if mention.plural:
            words = [plural(word) for word in words if word not in ("someone", "somebody")]
    return [word for word in words if word != written]


@dataclass(frozen=True)
class Clause:
    subject: str
    participle: str
    third: str
    rest: str
    be: str


def clause_of(text: str) -> Clause | None:
    """Who, doing what, and the rest; None where the prompt is not one subject with one action in the participle."""
    reading = read(text)
    actions = reading.of("action")
    if len(actions) != 1 or actions[0].shape not in ("gerund", "participle"):
        return None
    action = actions[0]
    subjects = [mention for mention in reading.of("entity", "unknown") if mention.end <= action.start]
    subject = reading.text[: action.start].strip(" ,")
    rest = reading.text[action.end :].strip(" ,")
    if not subjects or not rest or re.search(r"[,.;]|\b(who|which|that|is|are)$", subject):
        return None
    several = any(mention.plural for mention in subjects[:1]) or bool(reading.of("number"))
    participle = reading.text[action.start : action.end]
    forms = lexicon().actions[action.domain][action.group]
    third = next((form.third for form in forms if form.participle == participle.lower() and form.third), None)
    be = "are" if several else "is"
    return Clause(subject, participle, third if third and not several else f"{be} {participle}", rest, be)


def _reordered(text: str, order: str) -> str | None:
    clause = clause_of(text)
    if clause is None:
        return None
    fronted = order.startswith("{rest}")
    if fronted and not re.match(
        r"(?:on|in|at|by|under|next|near|beside|behind|over|against|across)\b", clause.rest
    ):
        return None
    return order.format(**vars(clause))


def _without_articles(text: str) -> str:
    return re.sub(r"\b(?:an?|the) ", "", text, flags=re.IGNORECASE)


def _with_definite_articles(text: str) -> str:
    return re.sub(r"\ban? ", "the ", text, count=1, flags=re.IGNORECASE)


def edited(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    """`text` with characters [start, end) of each edit replaced, "a" and "an" put right, and no article before "someone"."""
    for start, end, replacement in sorted(edits, reverse=True):
        text = text[:start] + replacement + text[end:]
    text = re.sub(
        r"\b(?:an?|the) (someone|somebody|no|two|three|four|five|six)\b", r"\1", text, flags=re.IGNORECASE
    )
    text = re.sub(r"\b(a)n?(?= [aeiou])", r"\1n", text, flags=re.IGNORECASE)
    text = re.sub(r"\b(a)n(?= [^aeiou\W])", r"\1", text, flags=re.IGNORECASE)
    return " ".join(text.replace(" ,", ",").split()).strip(" ,")


def belongs(text: str, part: Part) -> bool:
    """Whether a synonym or template is the part's: two thirds are for training, by a hash of the text."""
    held_out = hashlib.sha256(text.encode()).digest()[0] % 3 == 0
    return part == "all" or held_out == (part == "calibration")


def choices(texts: Sequence[str], part: Part) -> list[str]:
    return [text for text in texts if belongs(text, part)]
