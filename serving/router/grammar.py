"""English grammar of prompts, by the forms of words and their neighbours: what acts, what is a thing, what only describes.

A parser would know more; prompts are short, often no sentences, and a decision has a few milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from corrector.prompts.variations.lexicon import Word, lexicon
from serving.router.wordnet import Lemma, wordnet

Role = Literal["action", "thing", "modifier"]

PARTICLES = frozenset(["up", "out", "down", "off", "over", "in", "on", "away", "together", "through", "into"])
_DETERMINERS = frozenset(
    ["a", "an", "the", "his", "her", "its", "their", "some", "this", "that", "my", "your", "our"]
)
_AUXILIARIES = frozenset(["is", "are", "be", "being", "was", "were", "has", "have", "had", "been"])
_BEFORE_VERBS = frozenset((*_AUXILIARIES, "to", "who", "that", "which"))
_CLAUSES = frozenset((*_AUXILIARIES, "and", "or", "as", "while", "who", "which", "where", "that"))
_PICTURES = frozenset(
    (
        *("photo", "photograph", "picture", "image", "shot", "view", "illustration", "render", "style"),
        *("light", "lighting"),
    )
)
_ARTWORKS = frozenset(["painting", "drawing", "engraving", "etching", "rendering"])
_STOPS = frozenset(",.;:!?()|")
_NOT_DONE = frozenset(
    (
        *(
            "fail",
            "refuse",
            "try",
            "want",
            "attempt",
            "learn",
            "wait",
            "prepare",
            "plan",
            "hope",
            "scared",
            "scare",
        ),
        *(
            "afraid",
            "go",
            "ready",
            "forget",
            "pretend",
            "hesitate",
            "struggle",
            "dream",
            "decide",
            "threaten",
            "wish",
        ),
        *("need", "like", "teach"),
    )
)
"""Words behind which "to" names an action that does not happen."""
_WISHES = frozenset(["from", "after", "before", "for", "about", "than", "like", "despite", "if", "when"])
_REACH = 8
"""Words between a preposition and its noun."""


@dataclass(frozen=True)
class Token:
    """A word or punctuation mark; `closed` where its class is closed, otherwise its base forms.

    Attributes:
        start: Characters [start, end) of the text.
        clause: Number of commas, colons and full stops before it.
    """

    word: str
    start: int
    end: int
    closed: Word | None
    clause: int
    lemmas: tuple[Lemma, ...] = ()

    @property
    def is_content(self) -> bool:
        return self.closed is None

    def has(self, part: str) -> bool:
        """Whether it may be a noun ("n"), verb ("v") or adjective ("a")."""
        return any(each == part for _, each in self.lemmas)


def roles(tokens: list[Token]) -> list[Role]:
    """What each word is in the prompt; of no meaning for closed classes."""
    found: list[Role] = []
    for index in range(len(tokens) - 1, -1, -1):
        found.append(_role(tokens, index, found[-1] if found else "thing"))
    return found[::-1]


def _role(tokens: list[Token], index: int, following: Role) -> Role:
    token = tokens[index]
    if token.has("v") and _is_action(tokens, index):
        return "action"
    if _follows(tokens, index) and following != "action":
        return "modifier"
    after = tokens[index + 1] if index + 1 < len(tokens) else None
    described = after is not None and (after.word in _PICTURES or (token.has("a") and _is_adjective(after)))
    return "thing" if token.has("n") and not described else "modifier"


def _is_adjective(token: Token) -> bool:
    """Whether a word of a closed class may stand between an adjective and its noun: "wet golden retriever"."""
    return token.closed is not None and (
        token.closed.kind == "colour" or ("_" not in token.word and (token.word, "a") in wordnet())
    )


def _follows(tokens: list[Token], index: int) -> bool:
    """Whether another content word comes directly after this one."""
    return index + 1 < len(tokens) and tokens[index + 1].is_content


def _is_action(tokens: list[Token], index: int) -> bool:
    """Whether a word that may be a verb is one here, by its form and its neighbours."""
    word, before = tokens[index].word, tokens[index - 1] if index else None
    if word in _ARTWORKS and (index + 1 == len(tokens) or tokens[index + 1].word not in _DETERMINERS):
        return False
    if before is not None and index > 1 and (before.word in PARTICLES or before.word.endswith("ly")):
        before = tokens[index - 2]
    if before is not None and (before.word in _DETERMINERS or before.word.endswith("'s")):
        return False
    if before is not None and before.word in _BEFORE_VERBS:
        return not word.endswith("ing") or not _follows(tokens, index) or before.word in _AUXILIARIES
    subject = before is not None and before.is_content and before.has("n")
    if word.endswith("ing") and before is not None and _is_gerund(before) and _follows(tokens, index):
        return False  # "glowing interlocking spirals"
    if word.endswith("ing"):
        # "glowing horseshoe" describes; "a man eating pasta" and "crossing a glacier" act.
        return subject or not _follows(tokens, index)
    if before is None or not subject or index + 1 == len(tokens) or tokens[index + 1].word in _STOPS:
        return False
    if compounds(before, tokens[index]):  # "horse shoe", "broad shouldered"
        return False
    if word.endswith("ed") or not tokens[index].has("n"):
        return True
    acts = any(_is_gerund(token) for token in tokens[:index] if token.clause == tokens[index].clause)
    if acts:  # "helping a girl climb"
        return not _follows(tokens, index) and not word.endswith("s") and is_living(before)
    after = tokens[index + 1]
    # "lies curled up" acts, "leaves" and "waves" before a noun do not
    described = not after.is_content or (after.has("v") and after.word.endswith(("ed", "ing")))
    return described and word.endswith("s") != is_several(before)


def compounds(before: Token, token: Token) -> list[Lemma]:
    """WordNet's compounds of two words that stand together: "shoe laces" is "shoelace"."""
    return [
        (f"{before.word}{joint}{base}", part)
        for joint in ("_", "", "-")
        for base, part in (*token.lemmas, (token.word, "a"))
        if part != "v" and (f"{before.word}{joint}{base}", part) in wordnet()
    ]


def is_measure(tokens: list[Token], index: int) -> bool:
    """Whether a noun counts the one behind "of": "a pile of leaves", "a cup of tea"."""
    of = index + 1 < len(tokens) and tokens[index + 1].word == "of"
    return of and wordnet().is_measure(tokens[index].lemmas)


def _is_gerund(token: Token) -> bool:
    return token.has("v") and token.word.endswith("ing")


def is_living(token: Token | None) -> bool:
    """Whether a noun is a person or an animal."""
    if token is None:
        return False
    known = lexicon().words.get((token.word,))
    if known is not None and known.kind == "entity":
        return known.domain == "living"
    return not token.has("a") and wordnet().is_living(token.lemmas)


def is_several(token: Token | None) -> bool:
    """Whether a noun is in the plural: as the lexicon has it, or by its ending and its base forms."""
    if token is None or token.word.endswith(("'s", "ss")):
        return False
    known = lexicon().words.get((token.word,))
    if known is not None and known.kind == "entity":
        return known.plural
    bases = {base.replace("_", "").replace("-", "") for base, part in token.lemmas if part == "n"}
    word = token.word.replace("-", "")
    return bool(bases - {word}) and (word not in bases or word.endswith("s"))


def relation(tokens: list[Token], roles: list[Role], index: int) -> str:
    """The group of the preposition before a noun's phrase; empty for none."""
    for position in range(index - 1, max(-1, index - _REACH), -1):
        token = tokens[position]
        if token.closed is None:
            if roles[position] != "modifier":
                break
        elif token.closed.kind == "relation":
            pictured = position > 0 and tokens[position - 1].word in (*_PICTURES, *_ARTWORKS)
            if token.closed.group != "of" or not (
                pictured or not any(each.is_content for each in tokens[:position])
            ):
                return token.closed.group
        elif not token.word[0].isalnum() or token.word in _CLAUSES:
            break
    return ""


def is_wished(tokens: list[Token], index: int) -> bool:
    """Whether the action is only wished or feared: after "to" behind an action, or after "of" behind a word of feeling."""
    if not index:
        return False
    before = tokens[index - 1].word
    reason = tokens[index - 2] if index > 1 else None
    if before == "of":
        return reason is not None and reason.is_content and (reason.has("v") or not reason.has("n"))
    if before == "to":  # "kneeling to tie" ties, "failing to tie" does not
        return reason is None or any(base in _NOT_DONE for base, _ in reason.lemmas)
    return before in _WISHES


def is_passive(tokens: list[Token], index: int) -> bool:
    """Whether an action happens to what is before it: "is shaved by"."""
    word, before = tokens[index].word, tokens[index - 1].word if index else ""
    after = tokens[index + 1].word if index + 1 < len(tokens) else ""
    return not word.endswith("ing") and (before in _AUXILIARIES or after == "by")


def leads(tokens: list[Token], index: int) -> bool:
    """Whether an action leads to another one: "kneeling down to tie"."""
    behind = index + 1
    while behind < len(tokens) and tokens[behind].word in PARTICLES:
        behind += 1
    return behind < len(tokens) and tokens[behind].word == "to" and _follows(tokens, behind)
