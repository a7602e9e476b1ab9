"""English grammar that a change of words must keep: a or an, determiners, and nouns that take no article."""

from __future__ import annotations

import re
from collections.abc import Sequence

from corrector.prompts.variations.lexicon import lexicon, plural
from corrector.prompts.variations.prompt_parsing import Mention, Reading

Edit = tuple[int, int, str]
"""Characters [start, end) of a text and what takes their place."""

PRONOUNS = ("someone", "somebody")
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_ARTICLE = re.compile(r"\b(an?) (?=(\w[\w'-]*))", re.IGNORECASE)
# By sound, not by letter: an hour, a unicorn, a European, a one-legged man, an X-ray, an 8-year-old.
_CONSONANT_SOUND = re.compile(
    r"e[uw]|onc?e\b|uni(?:[^nmd]|mo)|u[bcfhjkqrst][aeiou]|usb\b|u-|[^aeiou]", re.IGNORECASE
)
_VOWEL_SOUND = re.compile(r"hour|heir|honest|honou?r|8|1[18](?!\d)|(?-i:[FHLMNRSX])(?=-|$)", re.IGNORECASE)
_DETERMINERS = frozenset(
    (
        *("a", "an", "the", "some", "no", "this", "that", "these", "those"),
        *("my", "your", "his", "her", "its", "our", "their"),
    )
)
_ADJECTIVES = frozenset(
    (
        *("beautiful", "pretty", "nice", "cute", "lovely", "happy", "relaxed", "peaceful", "calm", "casual"),
        *("young", "old", "elderly", "adult", "little", "small", "big", "large", "tall", "wide", "golden"),
        *("soft", "natural", "single"),
    )
)
_ADJECTIVES_AT_MOST = 3
_PARTICIPLE = re.compile(r"(?:ing|ed|made|worn|seen)$", re.IGNORECASE)


def with_article(word: str) -> str:
    """ "a" or "an", by the sound of `word`."""
    return "a" if not _VOWEL_SOUND.match(word) and _CONSONANT_SOUND.match(word) else "an"


def edited(text: str, edits: Sequence[Edit]) -> str:
    """`text` with the edits done, no article before "someone" or a count, and "a" or "an" by sound.

    An article before an abbreviation or a number stays, because their sound is unknown.
    """
    own = {
        match.group() + match[2] for match in _ARTICLE.finditer(text) if not re.fullmatch("[a-z]+", match[2])
    }
    for start, end, replacement in sorted(edits, reverse=True):
        text = text[:start] + replacement + text[end:]
    text = re.sub(
        r"\b(?:an?|the) (someone|somebody|no|two|three|four|five|six)\b", r"\1", text, flags=re.IGNORECASE
    )

    def agreed(match: re.Match[str]) -> str:
        if edits and match.group() + match[2] in own:
            return match.group()
        return match[1][0] + with_article(match[2])[1:] + " "

    text = _ARTICLE.sub(agreed, text)
    return " ".join(text.replace(" ,", ",").split()).strip(" ,")


def determiner(reading: Reading, mention: Mention) -> tuple[int, int]:
    """Characters [start, end) of the article, possessive or count of a noun, with the space behind it.

    Adjectives may come between them. Without a determiner: the noun's start, twice.
    """
    text, known = reading.text.lower(), lexicon()
    position = mention.start
    tokens = [*_WORD.finditer(text[:position])]
    for index in range(len(tokens) - 1, max(-1, len(tokens) - 2 - _ADJECTIVES_AT_MOST), -1):
        token = tokens[index]
        if text[token.end() : position] != " ":
            break
        if index and token.group() == "of" and (counted := known.words.get((tokens[index - 1].group(),))):
            # a group of people: the count is what comes before "of".
            if counted.kind != "number":
                break
            token = tokens[index - 1]
            index -= 1
        word = known.words.get((token.group(),))
        if token.group() in _DETERMINERS or (word is not None and word.kind == "number"):
            before = tokens[index - 1] if index else None
            counted_article = before is not None and text[before.start() : token.start()] in ("a ", "the ")
            return (before.start() if before is not None and counted_article else token.start()), position
        described = word.kind == "colour" or token.group() in _ADJECTIVES if word else None
        if described is False or (described is None and token.group().endswith(("ing", "s"))):
            break
        position = token.start()
    return mention.start, mention.start


def is_modifier(reading: Reading, mention: Mention) -> bool:
    """Whether another noun follows directly, to which the article belongs: "coffee" in "a coffee cup"."""
    return any(
        reading.text[mention.end : other.start] == " "
        and not (other.kind == "unknown" and _PARTICIPLE.search(reading.text[other.start : other.end]))
        for other in reading.of("entity", "unknown")
        if other.start > mention.end
    )


def noun_edits(reading: Reading, mention: Mention, noun: str) -> list[Edit]:
    """Edits that replace a mention's noun by `noun` (singular), in the mention's number and with its article."""
    known, text = lexicon(), reading.text
    start, end = determiner(reading, mention)
    written = text[start:end].strip().lower()
    described = end < mention.start
    if noun in PRONOUNS and described:
        noun = "person"
    counted = bool(written) and written not in _DETERMINERS
    bare = noun in known.no_article
    many = mention.plural or (counted and mention.kind == "unknown")
    if not bare and (many or noun in known.pairs):
        noun, bare = plural(noun), True
    edits = [(mention.start, mention.end, noun)]
    if is_modifier(reading, mention):
        return edits
    if bare and (written in ("a", "an") or (counted and noun in known.no_article)):
        edits.append((start, end, ""))
    elif not bare and start == end and _needs_none(reading, mention) and re.search(r"\b(?:an?|the) ", text):
        edits.append((start, start, "a "))
    return edits


def _needs_none(reading: Reading, mention: Mention) -> bool:
    """Whether the noun is correct without an article, directly after a preposition or a verb."""
    known = lexicon()
    written = reading.text[mention.start : mention.end].lower()
    by_nature = mention.kind == "unknown" or mention.plural or written in known.no_article
    before = known.words.get(
        tuple(reading.text[mention.relation_start : mention.start].lower().split()), None
    )
    governed = before is not None and before.kind == "relation"
    return by_nature and (governed or any(verb.end + 1 == mention.start for verb in reading.of("action")))
