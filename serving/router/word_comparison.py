"""Compares two prompts word by word: which words of the one stand for which of the other, what is missing, and what is added.

A sentence embedding cannot tell "a person lying on the grass" from "grass lying on a person" or "a person not lying on the
grass". Here each word is compared with the word that probably stands for it (serving.router.word_matching).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from corrector.prompts.variations.lexicon import lexicon
from serving.router.prompt_reading import Reading, Term
from serving.router.word_matching import Prompt, matched_terms, pooled_likeness
from serving.router.wordnet import wordnet

_OTHER_PLACE = frozenset(("under", "behind", "before", "over", "against", "between", "from", "toward"))
"""Groups of prepositions that put a thing elsewhere than "on" or "in"."""


@dataclass(frozen=True)
class Differences:
    """How a prompt differs from a registered one; the features of the pair classifier, 0 where they agree.

    Attributes:
        place: Mean doubt of registered things with a preposition: 1 minus the probability that a word of the prompt means it.
        details: Likewise for the words behind the part that has the action.
        doubts: The sum of the doubts of actions, people, animals and things without a preposition.
        relations: Matched things with another preposition.
        actions: Actions that are added.
        wished: Whether the action is only wished or feared.
    """

    place: float
    details: float
    doubts: float
    relations: float
    actions: float
    wished: float

    @property
    def features(self) -> tuple[float, ...]:
        return tuple(vars(self).values())


@dataclass(frozen=True)
class Comparison:
    """How two prompts differ, or a refusal: a text that says why the prompt cannot mean the same.

    Attributes:
        contradiction: Why it hardly can: another number, or who does it and to whom are exchanged; else empty.
        doubt: The greatest single difference in words, for the reason that users read; empty where there is none.
    """

    differences: Differences | None = None
    refusal: str = ""
    contradiction: str = ""
    doubt: str = ""


def comparisons(texts: Sequence[Prompt], asked: Prompt) -> list[Comparison]:
    """Compare the meaning of `asked` with that of each of `texts`, which mean the same as each other.

    A word of one text may stand for the word in its place in another: of "tying his shoelaces" and "lacing his shoes" a prompt
    may take one word each.
    """
    return [
        _compared(text, asked, pooled)
        for text, pooled in zip(texts, pooled_likeness(texts, asked), strict=True)
    ]


def _compared(registered: Prompt, asked: Prompt, likeness: NDArray[np.float64]) -> Comparison:
    one, other = registered.reading, asked.reading
    if stop := _negation(one, other) or _other_text(one, other):
        return Comparison(refusal=stop)
    matches = matched_terms(one.terms, other.terms, likeness)
    contradiction = _number(one, other, matches) or _exchanged(one.terms, other.terms, matches)
    doubts = [
        (1.0 - _covered(likeness, index, matches)) * (0.5 if term.measure else 1.0)
        for index, term in enumerate(one.terms)
    ]
    added = [
        term
        for index, term in enumerate(other.terms)
        if index not in matches.values()
        and not term.measure
        and not _echoes(one.terms, likeness, index, term)
    ]
    return Comparison(
        _differences(one.terms, other.terms, matches, doubts, added),
        contradiction=contradiction,
        doubt=_doubt(one.terms, doubts, added),
    )


def _covered(likeness: NDArray[np.float64], index: int, matches: dict[int, int]) -> float:
    """Probability that the registered term is in the prompt; a word that stands for another term may say it too."""
    if index in matches:
        return float(likeness[index, matches[index]])
    return 0.7 * float(likeness[index].max(initial=0.0))


def _echoes(registered: Sequence[Term], likeness: NDArray[np.float64], column: int, term: Term) -> bool:
    """Whether an unmatched word says again what is matched: "golden retriever dog"; a further person hardly does."""
    again = [
        likeness[row, column]
        for row, each in enumerate(registered)
        if (each.role == "action") == (term.role == "action")
    ]
    return bool(max(again, default=0.0) > (0.9 if term.living else 0.6))


def _differences(
    one: Sequence[Term],
    other: Sequence[Term],
    matches: dict[int, int],
    doubts: list[float],
    added: list[Term],
) -> Differences:
    last = _main_clause(one)

    def mean(*chosen: bool) -> float:
        values = [doubt for doubt, wanted in zip(doubts, chosen, strict=True) if wanted]
        return sum(values) / len(values) if values else 0.0

    worn = _attributes(one, last)
    main = [term.clause <= last and index not in worn for index, term in enumerate(one)]
    plain = [
        m and term.role == "thing" and (not term.relation or term.living)
        for m, term in zip(main, one, strict=True)
    ]
    placed = [
        m and term.role == "thing" and bool(term.relation) and not term.living
        for m, term in zip(main, one, strict=True)
    ]
    acting = [m and term.role == "action" for m, term in zip(main, one, strict=True)]
    tail = max((other[j].clause for i, j in matches.items() if main[i]), default=0)
    scene = [term for term in added if term.clause <= tail and not wordnet().is_body_part(term.lemmas)]
    posed = any(_is_pose(term) for term in one)
    pairs = [(one[i], other[j]) for i, j in matches.items() if main[i]]
    return Differences(
        place=mean(*placed),
        details=mean(*(not each for each in main)),
        doubts=sum(doubt for doubt, a, b in zip(doubts, acting, plain, strict=True) if a or b),
        relations=sum(_moved(was, now) for was, now in pairs),
        actions=sum(
            term.role == "action" and not term.describes and (posed or not _is_pose(term)) for term in scene
        ),
        wished=float(any(now.wished and not was.wished for was, now in pairs if was.role == "action")),
    )


def _attributes(terms: Sequence[Term], clause: int) -> set[int]:
    """Indices of what only describes the subject, where the action has a place too: "a smith in an apron at a forge"."""
    living = next(
        (i for i, t in enumerate(terms) if t.living and t.clause == clause and not t.relation), len(terms)
    )
    action = next((i for i, t in enumerate(terms) if t.role == "action" and i > living), 0)
    if not any(t.role == "thing" and t.relation and t.clause == clause for t in terms[action + 1 :]):
        return set()
    return {i for i in range(living + 1, action) if terms[i].relation}


def _is_pose(action: Term) -> bool:
    return action.group in lexicon().actions["pose"]


def _main_clause(terms: Sequence[Term]) -> int:
    """The clause with the first action, or the first one."""
    return next((term.clause for term in terms if term.role == "action"), terms[0].clause if terms else 0)


def _moved(was: Term, now: Term) -> bool:
    """Whether a thing stands elsewhere: under the table, not on it."""
    if (was.role, now.role) != ("thing", "thing") or was.relation == now.relation:
        return False
    if was.living and not was.relation:  # "a dog sitting on a cat"
        return now.relation in ("at", *_OTHER_PLACE)
    elsewhere = was.relation == "at" and now.relation in ("near", "with")
    return elsewhere or was.relation in _OTHER_PLACE or now.relation in _OTHER_PLACE


def _negation(registered: Reading, asked: Reading) -> str:
    for word in asked.negations:
        if word not in registered.negations:
            return f'it says "{word}"'
    return "it is not negated" if registered.negations and not asked.negations else ""


def _other_text(registered: Reading, asked: Reading) -> str:
    if sorted(registered.quoted) == sorted(asked.quoted):
        return ""
    return f"the text to show is {_quotes(asked)}, not {_quotes(registered)}"


def _quotes(reading: Reading) -> str:
    return ", ".join(f'"{text}"' for text in reading.quoted) or "none"


def _number(registered: Reading, asked: Reading, matches: dict[int, int]) -> str:
    """Why the counts differ; "two hands" are hands, but two dogs are no dog."""
    for i, j in matches.items():
        was, now = registered.terms[i], asked.terms[j]
        if was.living and was.role == now.role == "thing" and was.several != now.several:
            return f'"{now.word}" is {"more than" if now.several else "only"} one'
    several = any(term.several for term in registered.terms)
    extra = [count for count in asked.numbers if count not in registered.numbers]
    if extra and (registered.numbers or not several or extra[0] != "two"):
        return f'"{extra[0]}" makes it another'
    lost = [count for count in registered.numbers if count not in asked.numbers]
    return f'nothing says "{lost[0]}"' if lost else ""


def _exchanged(one: Sequence[Term], other: Sequence[Term], matches: dict[int, int]) -> str:
    """Why subject and object of an action are exchanged; "shaved by a barber" is read as passive."""
    for i, j in matches.items():
        if one[i].role != "action" or other[j].role != "action":
            continue
        moved = set()
        for k, m in matches.items():
            if not (_takes_part(one[k]) and _takes_part(other[m])):
                continue
            before, now = _side(one, i, k), _side(other, j, m)
            if before != now and "" not in (before, now):
                moved.add(before)
        if len(moved) == 2:
            return "who does it and to whom are exchanged"
    return ""


def _takes_part(term: Term) -> bool:
    """Whether a word can be who does it or to whom it is done: a thing, or the owner of one, "a nurse's arm"."""
    return term.role == "thing" or (term.role == "modifier" and term.word.endswith("'s"))


def _side(terms: Sequence[Term], action: int, thing: int) -> str:
    """Whether a thing is the subject or the object of an action; empty for neither."""
    verb, noun = terms[action], terms[thing]
    passive = verb.passive
    if noun.relation == "near" and passive:
        return "subject"
    if noun.relation:
        return "object" if not passive else ""
    before = noun.start < verb.start
    return ("object" if before else "subject") if passive else ("subject" if before else "object")


def _doubt(terms: Sequence[Term], doubts: Sequence[float], added: Sequence[Term]) -> str:
    """The greatest difference in words, as users read it."""
    if doubts and max(doubts) > 0.5:
        return f'nothing says "{terms[int(np.argmax(doubts))].word}"'
    return f'"{added[0].word}" may make it another' if added else ""
