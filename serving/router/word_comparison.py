"""Compares two prompts word by word with a lexicon, to find differences that a sentence embedding does not show.

For MiniLM, "a person not lying on the grass" and "grass lying on a person" are close to "a person lying on the grass". Here
they are contradictions; so are words that have another meaning in the lexicon.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from corrector.prompts.variations.lexicon import PLACE, lexicon
from corrector.prompts.variations.prompt_parsing import Mention, Reading

_JOINED = re.compile(r"\b(?:and|with|while|as|but|or)\b")
_CONCEPTS = ("action", "entity", "number", "colour", "unknown")


@dataclass(frozen=True)
class Comparison:
    """Whether a prompt can mean the same as a registered one.

    Attributes:
        contradiction: A text that says why it cannot; None where no word contradicts.
        replaced: Number of concepts of the registered prompt that no known word covers, but an unknown word may mean.
        added: Number of other words that may change the meaning: unknown ones, or further things besides the subject.
        described: Number of unknown words that probably only describe: before a noun, or in a list at the end.
    """

    contradiction: str | None
    replaced: int = 0
    added: int = 0
    described: int = 0

    @property
    def doubts(self) -> tuple[int, int, int]:
        """`replaced`, `added`, `described`."""
        return self.replaced, self.added, self.described


def compare(registered: Reading, asked: Reading) -> Comparison:
    """Compare the meaning of `asked` with that of `registered`, by the words that the lexicon knows."""
    stop = _negation(registered, asked) or _wish(registered, asked) or _other_text(registered, asked)
    if stop is not None:
        return Comparison(stop)
    claimed: dict[Mention, Mention] = {}
    missing: list[Mention] = []
    for wanted in registered.of(*_CONCEPTS):
        candidates = [
            mention
            for mention in asked.of(wanted.kind)
            if mention not in claimed.values() and _covers(wanted, mention)
        ]
        match = next((mention for mention in candidates if mention.relation == wanted.relation), None)
        if match is not None:
            claimed[wanted] = match
        elif candidates and wanted.kind == "entity":
            return Comparison(_other_relation(registered, wanted, asked, candidates[0]))
        else:
            missing.append(wanted)
    doubtful: list[Mention] = []
    for mention in asked.of(*_CONCEPTS):
        if mention in claimed.values():
            continue
        verdict = _extra(registered, mention)
        if verdict == "other":
            return Comparison(f'"{_words(asked, mention)}" makes it another')
        if verdict == "doubtful":
            doubtful.append(mention)
    if _exchanged(registered, claimed):
        return Comparison("who does it and to whom are exchanged")
    companions = [mention for mention in doubtful if _is_companion(asked, mention)]
    if len(companions) > len(missing):
        return Comparison(f'"{_words(asked, companions[-1])}" is with it')
    # An unknown word may replace a missing concept if it does not only describe; no word may replace a number.
    describing = sum(_describes(asked, mention, claimed) for mention in doubtful)
    replacements = len(doubtful) - describing
    lost = [mention for mention in missing if mention.kind == "number"]
    if lost or len(missing) > replacements:
        return Comparison(f'nothing says "{_words(registered, (lost or missing)[0])}"')
    return Comparison(None, len(missing), replacements - len(missing), describing)


def _is_companion(asked: Reading, doubtful: Mention) -> bool:
    """Whether an unknown word is in the position of another subject."""
    before = asked.text[: doubtful.phrase_start].rstrip()
    return doubtful.kind == "unknown" and (
        doubtful.relation in ("with", "near") or before.endswith((" and", " or"))
    )


def _describes(asked: Reading, doubtful: Mention, claimed: dict[Mention, Mention]) -> bool:
    """Whether an unknown word is just before a noun, or in a list after all claimed words: "…, volumetric fog"."""
    if doubtful.kind != "unknown":
        return False
    mentions = asked.mentions[asked.mentions.index(doubtful) :]
    for one, other in pairwise(mentions):
        if other.kind not in ("entity", "unknown") or asked.text[one.end : other.start] != " ":
            break
        if other in claimed.values():
            return True
    last = max((mention.end for mention in claimed.values()), default=len(asked.text))
    between = asked.text[last : doubtful.start]
    return re.search(r"[,;.]", between) is not None and _JOINED.search(between) is None


def closest(registered: Iterable[Reading], asked: Reading) -> Comparison:
    """The comparison with the closest of `registered`; with the first where `asked` contradicts all."""
    comparisons = [compare(reading, asked) for reading in registered]
    possible = [comparison for comparison in comparisons if comparison.contradiction is None]
    return min(
        possible, key=lambda comparison: (sum(comparison.doubts), comparison.doubts), default=comparisons[0]
    )


def _words(reading: Reading, mention: Mention) -> str:
    return reading.text[mention.start : mention.end]


def _negation(registered: Reading, asked: Reading) -> str | None:
    allowed = {mention.group for mention in registered.of("negation")}
    for mention in asked.of("negation"):
        if mention.group not in allowed:
            return f'it says "{_words(asked, mention)}"'
    if allowed and not asked.of("negation"):
        return "it is not negated"
    return None


def _wish(registered: Reading, asked: Reading) -> str | None:
    if any(mention.wished for mention in registered.of("action")):
        return None
    wished = next((mention for mention in asked.of("action") if mention.wished), None)
    return None if wished is None else f'"{_words(asked, wished)}" does not happen in it'


def _other_text(registered: Reading, asked: Reading) -> str | None:
    if sorted(registered.quoted) == sorted(asked.quoted):
        return None
    return f"the text to show is {_quotes(asked)}, not {_quotes(registered)}"


def _quotes(reading: Reading) -> str:
    return ", ".join(f'"{text}"' for text in reading.quoted) or "none"


def _covers(wanted: Mention, mention: Mention) -> bool:
    if wanted.domain == "living" and wanted.plural != mention.plural:
        return False
    return lexicon().includes(wanted.group, mention.group)


def _other_relation(registered: Reading, wanted: Mention, asked: Reading, mention: Mention) -> str:
    here, there = (
        reading.text[found.phrase_start : found.end]
        for reading, found in ((asked, mention), (registered, wanted))
    )
    return f'"{here}" stands in it otherwise than "{there}"'


def _extra(registered: Reading, mention: Mention) -> Literal["same", "doubtful", "other"]:
    """How a mention that is not in the registered prompt changes the meaning: not, possibly, or certainly."""
    if mention.kind == "unknown":
        return "doubtful"
    if mention.kind == "colour":
        return "other" if registered.of("colour") else "same"
    if mention.kind == "number" or mention.domain == "living":
        return "other"
    same_kind = registered.of(mention.kind)
    akin = any(not lexicon().contrast(mention.group, wanted.group) for wanted in same_kind)
    if mention.kind == "action":
        return "same" if akin or mention.domain == "face" or mention.group == "wear" else "other"
    if mention.domain == "clothing" or (mention.domain == PLACE and mention.group in lexicon().surroundings):
        return "same"
    if mention.domain == PLACE:
        return "same" if akin and mention.relation in ("at", "") else "other"
    if mention.domain == "body":
        return "other" if any(wanted.domain == "body" for wanted in same_kind) else "doubtful"
    return "doubtful" if mention.relation in ("with", "near") else "other"


def _exchanged(registered: Reading, claimed: dict[Mention, Mention]) -> bool:
    """Whether subject and object of an action are exchanged."""
    for action in registered.of("action"):
        if action not in claimed:
            continue
        moved = set()
        for wanted, mention in claimed.items():
            if wanted.kind in ("entity", "unknown") and not wanted.relation:
                before, now = wanted.start < action.start, mention.start < claimed[action].start
                if before != now:
                    moved.add(before)
        if len(moved) == 2:
            return True
    return False
