"""Reads a prompt for its comparison with another: its words with base forms, their roles, and closed classes.

Closed classes are the few words whose meaning no dictionary of synonyms has: negations, numbers, prepositions, colours, and
words about how a picture is made. Everything else is looked up in WordNet.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from corrector.prompts.variations.lexicon import Word, lexicon
from serving.router import grammar
from serving.router.grammar import PARTICLES, Role, Token
from serving.router.wordnet import Lemma, wordnet

_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|[,.;:!?()|]")
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|(?<!\w)'([^']+)'(?!\w)")
_PLAIN = str.maketrans("‘’`´‐‑", "''''--")
_CLOSED = ("negation", "number", "relation", "colour", "neutral")
_MAX_TERMS = 60
"""Further words of a prompt are not compared: each is compared with each of a registered prompt."""
_LARGEST_COUNT = 20
"""Larger numbers are films, lenses and years."""


@dataclass(frozen=True)
class Term:
    """A word of a prompt that says what the picture shows.

    Attributes:
        start: Characters [start, end) of the text.
        lemmas: Base forms; of collocations that it heads too: "lacing" in "lacing up" has "lace" and "lace_up".
        relation: Group of a thing's preposition; empty for none.
        clause: Number of commas, colons and full stops before it.
        several: Whether a thing is more than one.
        wished: Whether an action is not said to happen: "to climb", "dreaming of climbing".
        passive: Whether an action happens to what is before it: "is shaved by".
        leads: Whether an action leads to another one: "kneeling down to tie".
        living: Whether a thing is a person or an animal.
        is_known: Whether WordNet has the word.
        animal: Whether it is an animal.
        measure: Whether it counts the noun behind "of": "a pile of leaves", "a cup of tea".
        group: Its group of synonyms in the lexicon, which has the commonest words of prompts; empty for none.
    """

    word: str
    start: int
    end: int
    lemmas: tuple[Lemma, ...]
    role: Role
    relation: str = ""
    clause: int = 0
    several: bool = False
    wished: bool = False
    passive: bool = False
    leads: bool = False
    living: bool = False
    is_known: bool = True
    animal: bool = False
    measure: bool = False
    group: str = ""

    @property
    def describes(self) -> bool:
        """Whether an action only describes: "dusted with flour", "made of", "wearing a hat", "kneeling to tie"."""
        participle = not self.word.endswith(("ing", "s")) and (self.word, "v") not in self.lemmas
        return self.role == "action" and (
            self.leads or participle or self.word in ("wearing", "using", "smiling")
        )


@dataclass(frozen=True)
class Reading:
    """A prompt's terms in their order, and its closed-class words by group.

    Attributes:
        quoted: Words that the picture should show, in lower case.
    """

    text: str
    terms: tuple[Term, ...]
    negations: tuple[str, ...]
    numbers: tuple[str, ...]
    colours: tuple[str, ...]
    quoted: tuple[str, ...]


def read(prompt: str) -> Reading:
    """What `prompt` says; never fails."""
    text = plain(prompt)
    lowered = text.lower() if len(text.lower()) == len(text) else text
    quotations = list(_QUOTED.finditer(lowered))
    quoted = tuple(" ".join(_TOKEN.findall(next(filter(None, found.groups())))) for found in quotations)
    for found in quotations:
        lowered = lowered[: found.start()] + ";" * len(found.group()) + lowered[found.end() :]
    tokens = _tokens(lowered)

    def said(kind: str) -> tuple[str, ...]:
        return tuple(t.closed.group for t in tokens if t.closed is not None and t.closed.kind == kind)

    return Reading(text, tuple(_terms(tokens)), said("negation"), said("number"), said("colour"), quoted)


def plain(prompt: str) -> str:
    """The prompt with plain quotation marks, apostrophes and hyphens, and without those around the whole."""
    text = " ".join(unicodedata.normalize("NFKC", prompt).translate(_PLAIN).split())
    whole = _QUOTED.fullmatch(text)
    return next(filter(None, whole.groups())) if whole else text


@lru_cache(maxsize=1)
def _closed() -> dict[tuple[str, ...], Word]:
    found = {words: word for words, word in lexicon().words.items() if word.kind in _CLOSED}
    # "that reads", "with the text": what is to be read stands in quotation marks.
    said = [words for words, word in lexicon().words.items() if word.domain == "showing"]
    return found | {
        words: Word("neutral", " ".join(words))
        for words in (*said, ("text",), ("word",), ("words",), ("him",))
    }


def _tokens(text: str) -> list[Token]:
    found = list(_TOKEN.finditer(text))
    words = [token.group() for token in found]
    tokens: list[Token] = []
    position = clause = 0
    while position < len(words):
        word, length, closed = words[position], 1, None
        for length in range(min(4, len(words) - position), 0, -1):
            if (closed := _closed().get(tuple(words[position : position + length]))) is not None:
                break
        if closed is not None and closed.kind == "negation" and _is_halt(words, position):
            closed = None
        if closed is None:
            closed = _by_form(word)
        if not word[0].isalnum():
            clause += word not in "()"
        start, end = found[position].start(), found[position + length - 1].end()
        lemmas = () if closed is not None else _lemmas(word)
        tokens.append(
            Token(" ".join(words[position : position + length]), start, end, closed, clause, lemmas)
        )
        position += length
    return tokens


def _is_halt(words: list[str], position: int) -> bool:
    """Whether "stop" says that somebody halts, and not what they no longer do: "stopped at the roadside"."""
    behind = words[position + 1] if position + 1 < len(words) else ""
    return ("stop", "v") in wordnet().lemmas(words[position]) and not behind.endswith("ing")


def _by_form(word: str) -> Word | None:
    if not word[0].isalnum():
        return Word("neutral", word)
    if word.endswith("n't"):
        return Word("negation", word)
    if word.isdecimal() and int(word) <= _LARGEST_COUNT:
        return Word("number", word)
    adverb = word.endswith("ly") and not any(part == "n" for _, part in wordnet().lemmas(word))
    return Word("neutral", word) if adverb or any(character.isdigit() for character in word) else None


def _lemmas(word: str) -> tuple[Lemma, ...]:
    known = wordnet()
    word = word.removesuffix("'s").removesuffix("'")
    return (
        known.lemmas(word)
        or known.lemmas(word.replace("-", ""))
        or known.lemmas(word.replace("-", "_"))
        or _guessed(word)
    )


def _guessed(word: str) -> tuple[Lemma, ...]:
    """The base forms of a word that WordNet lacks."""
    if word.endswith("s") and not word.endswith("ss"):
        return ((word[:-1], "n"),)
    return ((word, "n"), (word, "v")) if word.endswith(("ing", "ed")) else ((word, "n"),)


def _terms(tokens: list[Token]) -> list[Term]:
    found = grammar.roles(tokens)
    content = [index for index, token in enumerate(tokens) if token.is_content][:_MAX_TERMS]
    return [
        _term(tokens, i, found[i], grammar.relation(tokens, found, i) if found[i] != "action" else "")
        for i in content
    ]


def _term(tokens: list[Token], index: int, role: Role, relation: str) -> Term:
    token, acts, is_thing = tokens[index], role == "action", role == "thing"
    return Term(
        token.word,
        token.start,
        token.end,
        tuple(dict.fromkeys((*token.lemmas, *_collocations(tokens, index, role)))),
        role,
        relation=relation,
        clause=token.clause,
        several=is_thing and grammar.is_several(token),
        wished=acts and grammar.is_wished(tokens, index),
        passive=acts and grammar.is_passive(tokens, index),
        leads=acts and grammar.leads(tokens, index),
        living=is_thing and grammar.is_living(token),
        is_known=any(lemma in wordnet() for lemma in token.lemmas),
        animal=wordnet().is_animal(token.lemmas),
        measure=is_thing and grammar.is_measure(tokens, index),
        group=_group(tokens, index, role),
    )


def _group(tokens: list[Token], index: int, role: Role) -> str:
    """The group in the lexicon of the word, with the one behind or before it where they are one phrase: "stretched out"."""
    kind, known = "action" if role == "action" else "entity", lexicon().words
    word = tuple(tokens[index].word.removesuffix("'s").split())
    behind = tuple(tokens[index + 1].word.split()) if index + 1 < len(tokens) else ()
    before = tuple(tokens[index - 1].word.split()) if index else ()
    phrases = ((*word, *behind), (*before, *word), word, *((base,) for base, _ in tokens[index].lemmas))
    found = next(
        (known[phrase] for phrase in phrases if phrase in known and known[phrase].kind == kind), None
    )
    return "" if found is None else found.group


def _collocations(tokens: list[Token], index: int, role: Role) -> list[Lemma]:
    """Lemmas of collocations that the token heads: with a particle behind it, or with the word before it."""
    token, known = tokens[index], wordnet()
    found: list[Lemma] = []
    after = tokens[index + 1] if index + 1 < len(tokens) else None
    if role == "action" and after is not None and after.word in PARTICLES:
        found += [
            (f"{b}_{after.word}", p)
            for b, p in token.lemmas
            if p == "v" and (f"{b}_{after.word}", p) in known
        ]
    before = tokens[index - 1] if index else None
    if role != "action" and before is not None and before.is_content and before.clause == token.clause:
        found += grammar.compounds(before, token)
    return found
