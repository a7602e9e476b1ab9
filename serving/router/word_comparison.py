"""Compares two prompts word by word: which words of the one stand for which of the other, what is missing, and what is added.

A sentence embedding cannot tell "a person lying on the grass" from "grass lying on a person" or "a person not lying on the
grass". Here each word is matched with the word that probably means the same, by WordNet and by the words' vectors in context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from math import exp, sqrt
from operator import mul

import numpy as np
from numpy.typing import NDArray

from corrector.prompts.variations.lexicon import lexicon
from serving.router.embedding import Contextual, Embedder
from serving.router.prompt_reading import Reading, Term, read
from serving.router.weights import classifier_weights
from serving.router.wordnet import wordnet

_SAME_WORD = 1.0
_TYPO = 0.9
_SYNONYM = 0.85
"""At least, where both words name one synset first."""
_CROSSED = 0.4
"""Factor for an action and a thing, a living thing and another, or two animals of different kinds."""
_NO_MATCH = 0.2
"""Words that mean the same with a lower probability are not matched."""
_OTHER_PLACE = frozenset(("under", "behind", "before", "over", "against", "between", "from", "toward"))
"""Groups of prepositions that put a thing elsewhere than "on" or "in"."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """A prompt as it is compared: its reading, its sentence vector `[384]`, and its terms' vectors in context `[T, 384]`."""

    reading: Reading
    sentence: NDArray[np.float32]
    vectors: NDArray[np.float32]

    @classmethod
    def of(cls, text: str, embedder: Embedder) -> Prompt:
        reading = read(text)
        contextual: Contextual = embedder.contextual(reading.text)
        vectors = [contextual.word(term.start, term.end) for term in reading.terms]
        return cls(
            reading, contextual.sentence, np.array(vectors, np.float32).reshape(-1, len(contextual.sentence))
        )


@dataclass(frozen=True)
class Differences:
    """How a prompt differs from a registered one; the features of the pair classifier, 0 where they agree.

    Attributes:
        distance: 1 minus the cosine of the sentence vectors.
        action: The registered actions' largest doubt: 1 minus the probability that a word of the prompt means it; its root.
        subject: Likewise for people, animals and things without a preposition.
        place: Likewise for things with a preposition, their mean.
        description: Likewise for describing words, their mean; twice where others are added.
        details: Likewise for the words behind the part that has the action, their mean.
        doubts: The sum of the doubts of actions and subjects.
        relations: Matched things with another preposition.
        living: People and animals that are added.
        actions: Actions that are added.
        things: Things without a preposition that are added.
        places: Things with a preposition that are added.
        descriptions: Describing words that are added.
        wished: Whether the action is only wished or feared.
    """

    distance: float
    action: float
    subject: float
    place: float
    description: float
    details: float
    doubts: float
    relations: float
    living: float
    actions: float
    things: float
    places: float
    descriptions: float
    wished: float

    @property
    def features(self) -> tuple[float, ...]:
        return tuple(vars(self).values())


@dataclass(frozen=True)
class Comparison:
    """The differences, or a contradiction: a text that says why the prompt cannot mean the same.

    Attributes:
        doubt: The greatest single difference in words, for the reason that users read; empty where there is none.
    """

    differences: Differences | None = None
    contradiction: str = ""
    doubt: str = ""


def compare(registered: Prompt, asked: Prompt) -> Comparison:
    """Compare the meaning of `asked` with that of `registered`."""
    one, other = registered.reading, asked.reading
    if stop := _negation(one, other) or _other_text(one, other):
        return Comparison(contradiction=stop)
    likeness = _likeness(registered, asked)
    matches = _matches(one.terms, other.terms, likeness)
    if stop := _number(one, other, matches) or _exchanged(one.terms, other.terms, matches):
        return Comparison(contradiction=stop)
    doubts = [1.0 - _covered(likeness, index, matches) for index in range(len(one.terms))]
    added = [
        term
        for index, term in enumerate(other.terms)
        if index not in matches.values() and not _echoes(likeness, index, term)
    ]
    return Comparison(
        _differences(registered, asked, matches, doubts, added), doubt=_doubt(one.terms, doubts, added)
    )


def _likeness(registered: Prompt, asked: Prompt) -> NDArray[np.float64]:
    """Probability `[registered terms, asked terms]` that two terms mean the same."""
    near = registered.vectors @ asked.vectors.T
    found = np.zeros(near.shape)
    for row, one in enumerate(registered.reading.terms):
        for column, other in enumerate(asked.reading.terms):
            found[row, column] = _same(one, other, float(near[row, column]))
    return found


def _same(one: Term, other: Term, cosine: float) -> float:
    if one.group and other.group and lexicon().includes(one.group, other.group):
        return _SAME_WORD
    relation = wordnet().relation(other.lemmas, one.lemmas)
    if relation.same:
        return _SAME_WORD
    if one.group and other.group and lexicon().contrast(one.group, other.group):
        return 0.0
    if _is_typo(one, other):
        return _TYPO
    role = "action" if one.role == "action" else "thing"
    *weights, bias = classifier_weights().synonyms[role]
    logit = sum(map(mul, weights, synonym_features(one, other, cosine)), bias)
    crossed = role != ("action" if other.role == "action" else "thing") or one.living != other.living
    related = relation.synonym or relation.narrower or relation.broader
    crossed = crossed or (not related and one.animal and other.animal)
    likely = max(1.0 / (1.0 + exp(-logit)), _SYNONYM if relation.synonym == 1.0 else 0.0)
    return likely * (_CROSSED if crossed else 1.0)


def synonym_features(one: Term, other: Term, cosine: float) -> tuple[float, ...]:
    """How likely the words mean the same: by WordNet, and by the cosine of their vectors in context."""
    return *wordnet().relation(other.lemmas, one.lemmas).features, cosine


def _is_typo(one: Term, other: Term) -> bool:
    """Whether a word that WordNet lacks is spelt nearly as the other, or both begin with the same seven letters."""
    if one.word[0] != other.word[0]:
        return False
    if len(one.word) >= 7 and one.word[:7] == other.word[:7]:
        return True
    return not other.is_known and SequenceMatcher(None, one.word, other.word).ratio() >= 0.8


def _matches(one: Sequence[Term], other: Sequence[Term], likeness: NDArray[np.float64]) -> dict[int, int]:
    """For a registered term's index the matched asked one's: the likeliest pairs first, then those of one preposition."""
    pairs = sorted(
        (
            (
                likeness[i, j],
                one[i].relation == other[j].relation,
                one[i].role == other[j].role,
                -abs(i - j),
                i,
                j,
            )
            for i in range(len(one))
            for j in range(len(other))
            if likeness[i, j] >= _NO_MATCH
        ),
        reverse=True,
    )
    found: dict[int, int] = {}
    for *_, i, j in pairs:
        if i not in found and j not in found.values():
            found[i] = j
    return found


def _covered(likeness: NDArray[np.float64], index: int, matches: dict[int, int]) -> float:
    """Probability that the registered term is in the prompt; a word that stands for another term may say it too."""
    if index in matches:
        return float(likeness[index, matches[index]])
    return 0.7 * float(likeness[index].max(initial=0.0))


def _echoes(likeness: NDArray[np.float64], column: int, term: Term) -> bool:
    """Whether an unmatched word says again what is matched: "golden retriever dog"; a further person hardly does."""
    return bool(likeness[:, column].max(initial=0.0) > (0.9 if term.living else 0.6))


def _differences(
    registered: Prompt, asked: Prompt, matches: dict[int, int], doubts: list[float], added: list[Term]
) -> Differences:
    one, other = registered.reading.terms, asked.reading.terms
    last = _main_clause(one)

    def greatest(*chosen: bool) -> float:
        return sqrt(max((doubt for doubt, wanted in zip(doubts, chosen, strict=True) if wanted), default=0.0))

    def mean(*chosen: bool) -> float:
        values = [doubt for doubt, wanted in zip(doubts, chosen, strict=True) if wanted]
        return sum(values) / len(values) if values else 0.0

    main = [term.clause <= last for term in one]
    plain = [
        m and term.role == "thing" and (not term.relation or term.living)
        for m, term in zip(main, one, strict=True)
    ]
    placed = [
        m and term.role == "thing" and bool(term.relation) and not term.living
        for m, term in zip(main, one, strict=True)
    ]
    describing = [m and term.role == "modifier" for m, term in zip(main, one, strict=True)]
    acting = [m and term.role == "action" for m, term in zip(main, one, strict=True)]
    tail = max((other[j].clause for i, j in matches.items() if main[i]), default=0)
    scene = [term for term in added if term.clause <= tail and not wordnet().is_body_part(term.lemmas)]
    pairs = [(one[i], other[j]) for i, j in matches.items() if main[i]]
    return Differences(
        distance=1.0 - float(registered.sentence @ asked.sentence),
        action=greatest(*acting),
        subject=greatest(*plain),
        place=mean(*placed),
        description=mean(*describing) * (2.0 if any(term.role == "modifier" for term in scene) else 1.0),
        details=mean(*(not each for each in main)),
        doubts=sum(doubt for doubt, a, b in zip(doubts, acting, plain, strict=True) if a or b),
        relations=sum(_moved(was, now) for was, now in pairs),
        living=sum(term.living and term.role == "thing" for term in scene),
        actions=sum(term.role == "action" and not _describes(term) for term in scene),
        things=sum(term.role == "thing" and not term.living and not term.relation for term in scene),
        places=sum(term.role == "thing" and not term.living and bool(term.relation) for term in scene),
        descriptions=sum(term.role == "modifier" for term in scene),
        wished=float(any(now.wished and not was.wished for was, now in pairs if was.role == "action")),
    )


def _describes(action: Term) -> bool:
    """Whether an added action only describes: "dusted with flour", "wearing a hat", "using a razor", "kneeling to tie"."""
    return action.leads or action.word.endswith("ed") or action.word in ("wearing", "using", "smiling")


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
            if (
                one[k].role == "action"
                or other[m].role == "action"
                or one[k].role == "modifier"
                or other[m].role == "modifier"
            ):
                continue
            before, now = _side(one, i, k), _side(other, j, m)
            if before != now and "" not in (before, now):
                moved.add(before)
        if len(moved) == 2:
            return "who does it and to whom are exchanged"
    return ""


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
