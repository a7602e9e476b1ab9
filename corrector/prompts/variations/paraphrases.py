"""A prompt in other words: synonyms, order of words, articles, and what surrounds a prompt without changing it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

from corrector.prompts.variations.english import PRONOUNS, determiner, edited
from corrector.prompts.variations.lexicon import PLACE, lexicon, plural
from corrector.prompts.variations.prompt_parsing import Mention, Reading, read

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
FRONTED = re.compile(r"(?:on|in|at|by|under|next|near|beside|behind|over|against|across)\b")
"""Begins what may stand before its subject."""
_ATTEMPTS = 40


def paraphrases(prompt: str, limit: int = 50, seed: int = 0) -> tuple[str, ...]:
    """Up to `limit` different wordings of `prompt`, without the prompt itself; the same arguments give the same texts.

    Synonyms of action, place and nouns (a word for a kind of it too: a man for a person), order of words, tense, articles,
    and openings such as "a photo of".
    """
    rng = generator(prompt, "paraphrases", seed)
    reading = read(prompt)
    return tuple(distinct(lambda: worded(reading, rng), limit, {letters(reading.text)}))


def generator(prompt: str, purpose: str, seed: int) -> Random:
    """The random numbers behind the variations of a prompt."""
    return Random(f"{prompt}/{purpose}/all/{seed}")


def letters(text: str) -> str:
    """`text` without differences in case, spacing and punctuation, for comparison."""
    return " ".join(re.findall(r"[^\W_]+", text.lower()))


def distinct(make: Callable[[], str | None], limit: int, seen: set[str]) -> Iterator[str]:
    """Up to `limit` new texts of `make`, added to `seen`; stops after `_ATTEMPTS` failures in a row."""

    def new() -> Iterator[str]:
        failures = 0
        while failures < _ATTEMPTS:
            text = make()
            if text is None or letters(text) in seen:
                failures += 1
                continue
            failures = 0
            seen.add(letters(text))
            yield text

    return islice(new(), limit)


def worded(reading: Reading, rng: Random) -> str:
    """The prompt in other words, drawn with `rng`."""
    edits = []
    for mention in reading.of("action", "entity"):
        alternatives = _synonyms(reading, mention)
        if alternatives and rng.random() < 0.5:
            chosen = rng.choice(alternatives)
            whole = mention.domain == PLACE and mention.relation == "at" and not mention.plural
            if whole:
                fits = mention.phrase_start == mention.relation_start
            else:
                fits = chosen not in PRONOUNS or determiner(reading, mention)[1] == mention.start
            # "On the soft on the lawn" and "a young someone" are not English.
            if fits:
                edits.append((mention.phrase_start if whole else mention.start, mention.end, chosen))
    text = plain = edited(reading.text, edits)
    if rng.random() < 0.4:
        text = _reordered(text, rng.choice(_ORDERS)) or text
    # "A photo of" goes before a subject, not before "on the grass lies a person" or "a person lies".
    opened = text == plain
    if rng.random() < 0.25:
        text = rng.choice((_without_articles, _with_definite_articles))(text)
    if rng.random() < 0.3:
        text = _described(text, rng.choice(lexicon().adjectives))
    if opened and rng.random() < 0.6:
        opening = rng.choice(lexicon().openings)
        if FRONTED.match(text):  # "a photo of on the grass" is not English
            text = text if opening == "there is" else f"{opening.removesuffix(' of')}: {text}"
        else:
            several = opening == "there is" and is_several(read(text))
            text = f"{'there are' if several else opening} {text}"
    if rng.random() < 0.4:
        text = f"{text} {rng.choice(lexicon().closings)}".replace(" ,", ",")
    return text


def _described(text: str, adjective: str) -> str:
    """`text` with the adjective before its first noun that no preposition governs."""
    nouns = [mention for mention in read(text).of("entity") if not mention.relation]
    if not nouns or text[nouns[0].start : nouns[0].end].lower() in PRONOUNS:
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
            words = [plural(word) for word in words if word not in PRONOUNS]
    return [word for word in words if word != written]


def is_several(reading: Reading, end: int | None = None) -> bool:
    """Whether the first noun, before `end`, is more than one: a plural, counted, or joined by "and"."""
    nouns = [each for each in reading.of("entity", "unknown") if end is None or each.end <= end]
    if not nouns:
        return False
    last = nouns[0].end if end is None else end
    counts = [count for count in reading.of("number") if count.start < last]
    joined = end is not None and re.search(r"\band\b", reading.text[nouns[0].end : nouns[-1].start])
    return nouns[0].plural or bool(counts) or bool(joined)


@dataclass(frozen=True)
class Clause:
    """One subject with one action: a person | lying, lies | on the grass; `be` is "is" or "are"."""

    subject: str
    participle: str
    third: str
    rest: str
    be: str


def clause_of(text: str) -> Clause | None:
    """The prompt's clause; None unless it is one subject with one action in the participle."""
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
    several = is_several(reading, action.start)
    participle = reading.text[action.start : action.end]
    forms = lexicon().actions[action.domain][action.group]
    third = next((form.third for form in forms if form.participle == participle.lower() and form.third), None)
    be = "are" if several else "is"
    return Clause(subject, participle, third if third and not several else f"{be} {participle}", rest, be)


def _reordered(text: str, order: str) -> str | None:
    clause = clause_of(text)
    if clause is None:
        return None
    if order.startswith("{rest}") and not FRONTED.match(clause.rest):
        return None
    return order.format(**vars(clause))


def _without_articles(text: str) -> str:
    return re.sub(r"\b(?:an?|the) ", "", text, flags=re.IGNORECASE)


def _with_definite_articles(text: str) -> str:
    return re.sub(r"\ban? ", "the ", text, count=1, flags=re.IGNORECASE)
