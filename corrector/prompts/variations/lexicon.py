"""The words of image prompts in groups of synonyms, from `lexicon.yaml`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

Kind = Literal["action", "entity", "number", "colour", "negation", "relation", "neutral"]
Shape = Literal["gerund", "third", "base", "participle"]
PLACE = "place"

_IRREGULAR_PLURALS = {
    r"^person$": "people",
    r"child$": "children",
    r"foot$": "feet",
    r"tooth$": "teeth",
    r"mouse$": "mice",
    r"goose$": "geese",
    # Not of a human, a German, a Roman or a shaman.
    r"(?<!hu)(?<!ger)(?<!ro)(?<!sha)man$": "men",
    r"(?<=cal|wol|hal|hel|lea|loa|hie)f$": "ves",
    r"(?<=[nlw]i)fe$": "ves",
    r"(?<=sheep)$|(?<=deer)$|(?<=fish)$|(?<=craft)$|(?<=someone)$|(?<=somebody)$|(?<=series)$": "",
    r"(?<=[^aeiou])y$": "ies",
    r"(?<=[sxz])$|(?<=[cs]h)$|(?<=potato)$|(?<=tomato)$|(?<=hero)$": "es",
    r"$": "s",
}
"""The endings of singulars, the first that fits, and what takes their place."""
_PREPOSITION = re.compile(
    r"^(?:(?:on the edge of|in the middle of|on|in|at|by|against|across) )(?:(?:the|an|a) )?"
)


@dataclass(frozen=True)
class ActionForm:
    """One synonym of an action, as participle ("lying", "sprawled") and where it has one in the third person ("lies")."""

    participle: str
    third: str | None


@dataclass(frozen=True)
class Word:
    """What a phrase of the lexicon stands for.

    Attributes:
        group: The first of its synonyms.
        domain: An action's family, or an entity's domain; empty for the rest.
        shape: Of an action.
        plural: Of an entity.
    """

    kind: Kind
    group: str
    domain: str = ""
    shape: Shape | None = None
    plural: bool = False


@dataclass(frozen=True)
class Lexicon:
    """The lexicon; groups are named by their first word.

    Attributes:
        actions: Family, group, forms.
        nouns: Domain, group, words in the singular.
        places: Group, whole phrases such as "on the lawn".
        parents: For a group, the wider group: for "man", "person".
        related: Pairs of groups that do not exclude each other.
        akin: For a group, another one to which, with all its kinds, it is related.
        surroundings: Places that hold other places.
        no_article: Nouns that take no "a", mass nouns and plurals: water, stairs.
        pairs: Nouns that are only used in the plural, here in the singular: scissor, trouser.
        openings: Words before a prompt that keep its meaning; `closings` follow it, `adjectives` precede a noun.
        stems: What the bare stems of actions stand for: "climb".
        words: Every phrase as its lower-case words, with what it stands for.
        longest: Words in the longest phrase.
    """

    actions: Mapping[str, Mapping[str, tuple[ActionForm, ...]]]
    nouns: Mapping[str, Mapping[str, tuple[str, ...]]]
    places: Mapping[str, tuple[str, ...]]
    parents: Mapping[str, str]
    akin: Mapping[str, str]
    related: frozenset[frozenset[str]]
    surroundings: frozenset[str]
    no_article: frozenset[str]
    pairs: frozenset[str]
    openings: tuple[str, ...]
    closings: tuple[str, ...]
    adjectives: tuple[str, ...]
    stems: Mapping[str, Word] = field(repr=False)
    words: Mapping[tuple[str, ...], Word] = field(repr=False)
    longest: int

    def includes(self, general: str, special: str) -> bool:
        """Whether every `special` is a `general`: the same group, or one below it."""
        while special != general:
            if special not in self.parents:
                return False
            special = self.parents[special]
        return True

    def contrast(self, one: str, other: str) -> bool:
        """Whether the two groups exclude each other."""
        return not (
            self.includes(one, other)
            or self.includes(other, one)
            or frozenset((one, other)) in self.related
            or any(
                group in self.akin and self.includes(self.akin[group], kin)
                for group, kin in ((one, other), (other, one))
            )
        )


def plural(noun: str) -> str:
    """The plural of an English noun; a compound changes its last word. Mass nouns and pronouns stay."""
    *before, last = noun.split(" ")
    for ending, many in _IRREGULAR_PLURALS.items():
        if re.search(ending, last):
            last = re.sub(ending, many, last)
            break
    return " ".join([*before, last])


@lru_cache(maxsize=1)
def lexicon() -> Lexicon:
    raw = yaml.safe_load(Path(__file__).with_name("lexicon.yaml").read_text(encoding="utf-8"))
    actions = {
        family: {group: tuple(map(_action_form, forms)) for group, forms in groups.items()}
        for family, groups in raw["actions"].items()
    }
    nouns, parents, akin = _nouns(raw["nouns"])
    places = {group: tuple(phrases) for group, phrases in raw["places"].items()}
    words: dict[tuple[str, ...], Word] = {}
    # Where a phrase stands for several things, the first one counts.
    for phrase, word in (*_small_words(raw), *_entities(nouns, places), *_actions(actions)):
        words.setdefault(tuple(phrase.split()), word)
    return Lexicon(
        actions=actions,
        nouns=nouns,
        places=places,
        parents=parents,
        akin=akin,
        related=frozenset(frozenset(pair) for pair in raw["related"]),
        surroundings=frozenset(raw["surroundings"]),
        no_article=frozenset(raw["no_article"]),
        pairs=frozenset(raw["pairs"]),
        openings=tuple(raw["openings"]),
        closings=tuple(raw["closings"]),
        adjectives=tuple(raw["adjectives"]),
        stems={
            stem(form.third): Word("action", group, family, "base")
            for family, groups in actions.items()
            for group, forms in groups.items()
            for form in forms
            if form.third and " " not in form.third
        },
        words=words,
        longest=max(map(len, words)),
    )


def _nouns(
    raw: Mapping[str, Mapping[str, list[str]]],
) -> tuple[dict[str, dict[str, tuple[str, ...]]], dict[str, str], dict[str, str]]:
    """Nouns by domain and group, and which groups are below and akin to which."""
    nouns: dict[str, dict[str, tuple[str, ...]]] = {}
    parents: dict[str, str] = {}
    akin: dict[str, str] = {}
    for domain, groups in raw.items():
        nouns[domain] = {}
        for name, singulars in groups.items():
            group, below, parent = name.partition(" < ")
            group, near, kin = group.partition(" ~ ")
            nouns[domain][group] = tuple(singulars)
            if below:
                parents[group] = parent
            if near:
                akin[group] = kin
    return nouns, parents, akin


def _action_form(written: str) -> ActionForm:
    participle, _, third = written.partition("/")
    return ActionForm(participle, third or None)


def _small_words(raw: Mapping[str, Any]) -> Iterator[tuple[str, Word]]:
    listed: tuple[tuple[Kind, str], ...] = (
        ("negation", "negations"),
        ("neutral", "neutral"),
        ("colour", "colours"),
    )
    for kind, key in listed:
        for phrase in raw[key]:
            yield phrase, Word(kind, phrase)
    grouped: tuple[tuple[Kind, str], ...] = (("number", "numbers"), ("relation", "relations"))
    for kind, key in grouped:
        for group, phrases in raw[key].items():
            for phrase in phrases:
                yield phrase, Word(kind, group)


def _entities(
    nouns: Mapping[str, Mapping[str, tuple[str, ...]]], places: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[str, Word]]:
    for group, phrases in places.items():
        for phrase in phrases:
            noun = _PREPOSITION.sub("", phrase)
            yield noun, Word("entity", group, PLACE)
            yield plural(noun), Word("entity", group, PLACE, plural=True)
    for domain, groups in nouns.items():
        for group, singulars in groups.items():
            for noun in singulars:
                yield noun, Word("entity", group, domain)
                yield plural(noun), Word("entity", group, domain, plural=plural(noun) != noun)


def _actions(actions: Mapping[str, Mapping[str, tuple[ActionForm, ...]]]) -> Iterator[tuple[str, Word]]:
    for family, groups in actions.items():
        for group, forms in groups.items():
            for form in forms:
                yield from _action_entries(form, Word("action", group, family))


def _action_entries(form: ActionForm, word: Word) -> Iterator[tuple[str, Word]]:
    yield form.participle, replace(word, shape="participle" if form.third is None else "gerund")
    if form.third is not None:
        yield form.third, replace(word, shape="third")
        # Bare stems of other families are too often nouns: a watch, a drink, a point.
        if word.domain in ("pose", "motion"):
            yield stem(form.third), replace(word, shape="base")


def stem(third: str) -> str:
    """The stem of a verb in the third person: "climb" for "climbs", "lie down" for "lies down"."""
    first, _, rest = third.partition(" ")
    if re.search(r".[^aeiou]ies$", first):  # flies, carries; not lies
        first = f"{first[:-3]}y"
    else:
        first = first[:-2] if re.search(r"(ss|ch|sh|o|x)es$", first) else first.removesuffix("s")
    return f"{first} {rest}".strip()
