"""What a prompt is about, read with the lexicon: who or what, doing what, where."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from corrector.prompts.variations.lexicon import Kind, Shape, Word, lexicon

_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|[,.;:!?()]")
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|(?<!\w)'([^']+)'(?!\w)")
_PLAIN = str.maketrans("‘’`´‐‑", "''''--")
# Larger numbers are films, lenses and years.
_LARGEST_COUNT = 20
# Words between a preposition and its noun.
_REACH = 8
_DETERMINERS = frozenset(("a", "an", "the", "his", "her", "its", "their", "some", "this", "that"))
_WISHES = frozenset(
    ("to", "from", "after", "before", "for", "about", "than", "like", "despite", "if", "when")
)
_CLAUSE_STARTS = frozenset(("and", "or", "as", "while", "who", "which", "where", "that"))


@dataclass(frozen=True)
class Mention:
    """One thing that a prompt says, and where.

    Attributes:
        kind: "unknown" is a word that the lexicon does not have.
        group: Group in the lexicon; for an unknown word, its stem.
        domain: Of an entity ("living", "place", ...) or action ("pose", ...).
        start: Characters [start, end) of the prompt.
        phrase_start: Where the entity's preposition and article begin, unless adjectives part them; `start` without them.
        relation_start: Where its preposition begins, adjectives or not; `phrase_start` without one.
        relation: Group of an entity's preposition; empty for none.
        shape: Of an action.
        plural: Of an entity.
        wished: Whether an action is not said to happen: to climb, dreaming of climbing, after climbing.
    """

    kind: Kind | Literal["unknown"]
    group: str
    domain: str
    start: int
    end: int
    phrase_start: int
    relation_start: int
    relation: str = ""
    shape: Shape | None = None
    plural: bool = False
    wished: bool = False


@dataclass(frozen=True)
class Reading:
    """A prompt, and the mentions that matter in it, in their order.

    Attributes:
        text: The prompt, its quotation marks, apostrophes and hyphens plain.
        quoted: Words that the picture should show, in lower case; they are not among the mentions.
    """

    text: str
    mentions: tuple[Mention, ...]
    quoted: tuple[str, ...]

    def of(self, *kinds: str) -> tuple[Mention, ...]:
        return tuple(mention for mention in self.mentions if mention.kind in kinds)


def read(prompt: str) -> Reading:
    """What `prompt` says as far as the lexicon knows; never fails."""
    text = _plain(prompt)
    lowered = text.lower() if len(text.lower()) == len(text) else text
    quotations = list(_QUOTED.finditer(lowered))
    quoted = tuple(" ".join(_words(next(filter(None, found.groups())))) for found in quotations)
    for found in quotations:
        lowered = lowered[: found.start()] + ";" * len(found.group()) + lowered[found.end() :]
    tokens = list(_TOKEN.finditer(lowered))
    words = [token.group() for token in tokens]
    mentions: list[Mention] = []
    position = 0
    while position < len(words):
        length, word = _longest(words, position)
        if (mentions and mentions[-1].plural) or words[max(position - 1, 0)] == "to":
            # "two hands play", "to play": elsewhere a bare stem may as well be a noun.
            word = lexicon().stems.get(words[position], word) if length == 1 else word
        start, end = tokens[position].start(), tokens[position + length - 1].end()
        place = (start, end, *_relation(tokens, position, mentions))
        if word is None:
            mentions.append(Mention("unknown", _stem(words[position]), "", *place))
        elif word.kind == "entity":
            mentions.append(Mention("entity", word.group, word.domain, *place, plural=word.plural))
        elif word.kind not in ("neutral", "relation"):
            wished = word.kind == "action" and _is_wished(words[:position], mentions)
            place = (start, end, start, start, "")
            mentions.append(
                Mention(word.kind, word.group, word.domain, *place, shape=word.shape, wished=wished)
            )
        position += length
    return Reading(text, tuple(_joined(text, mentions)), quoted)


def _is_wished(before: list[str], mentions: list[Mention]) -> bool:
    """Whether an action after these words is not said to happen."""
    if not before:
        return False
    if before[-1] == "of":
        # "dreaming of climbing", but "a photo of climbing".
        return bool(mentions) and mentions[-1].kind in ("unknown", "action")
    return before[-1] in _WISHES


def _plain(prompt: str) -> str:
    text = " ".join(unicodedata.normalize("NFKC", prompt).translate(_PLAIN).split())
    # A prompt that is entirely in quotation marks quotes nothing.
    whole = _QUOTED.fullmatch(text)
    return next(filter(None, whole.groups())) if whole else text


def _words(text: str) -> list[str]:
    return [token for token in _TOKEN.findall(text) if token[0].isalnum()]


def _longest(words: list[str], position: int) -> tuple[int, Word | None]:
    known = lexicon()
    for length in range(min(known.longest, len(words) - position), 0, -1):
        word = known.words.get(tuple(words[position : position + length]))
        if word is not None:
            return length, word
    first = words[position]
    if not first[0].isalnum():
        return 1, Word("neutral", first)
    if first.endswith("n't"):
        return 1, Word("negation", first)
    if first.isdecimal() and int(first) <= _LARGEST_COUNT:
        return 1, Word("number", first)
    return 1, None


def _stem(word: str) -> str:
    for ending in ("'s", "ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word.removesuffix(ending)
    return word


def _relation(tokens: list[re.Match[str]], position: int, mentions: list[Mention]) -> tuple[int, int, str]:
    """`phrase_start`, `relation_start` and `relation` of the noun at `position`."""
    known = lexicon()
    words = [token.group() for token in tokens[:position]]
    said = {mention.end for mention in mentions if mention.kind in ("entity", "action")}
    first = position
    while first > 0 and words[first - 1] in _DETERMINERS:
        first -= 1
    phrase = first
    while first > max(0, phrase - _REACH):
        before = words[first - 1]
        if tokens[first - 1].end() in said or not before[0].isalnum() or before in _CLAUSE_STARTS:
            break
        for length in range(min(known.longest, first), 0, -1):
            word = known.words.get(tuple(words[first - length : first]))
            if word is None or word.kind != "relation":
                continue
            if word.group == "of" and (first < 2 or tokens[first - 2].end() not in said):
                # "of" relates the coffee to the cup in "a cup of coffee", but nothing in "a photo of a dog".
                continue
            start = tokens[first - length].start()
            return start if first == phrase else tokens[phrase].start(), start, word.group
        first -= 1
    return tokens[phrase].start(), tokens[phrase].start(), ""


def _joined(text: str, mentions: list[Mention]) -> Iterator[Mention]:
    """The mentions, with "a coffee cup" read as a cup of coffee: the last noun gets the relation of the whole."""
    for index, mention in enumerate(mentions):
        following = mentions[index + 1] if index + 1 < len(mentions) else None
        if _are_compound(text, mention, following):
            yield replace(mention, relation="of", phrase_start=mention.start, relation_start=mention.start)
        elif index > 0 and _are_compound(text, mentions[index - 1], mention):
            first = index - 1
            while first > 0 and _are_compound(text, mentions[first - 1], mentions[first]):
                first -= 1
            whole = mentions[first]
            yield replace(
                mention,
                relation=whole.relation,
                phrase_start=whole.phrase_start,
                relation_start=whole.relation_start,
            )
        else:
            yield mention


def _are_compound(text: str, one: Mention, other: Mention | None) -> bool:
    return other is not None and one.kind == other.kind == "entity" and text[one.end : other.start] == " "
