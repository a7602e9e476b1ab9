"""How a value is read, wherever it comes from: a batch file, a request, the registry, the router."""

import unicodedata

_JOINERS = frozenset("\u200c\u200d")
"""Zero-width joiner and non-joiner: emoji, Persian and Indic scripts are written with them."""


def normalised(prompt: str) -> str:
    """The words of `prompt`: NFKC, without case, punctuation and invisible characters; `prompt` itself where that leaves none.

    Two prompts with the same words are one prompt: a batch corrects it once, and the router routes both to the same adapter.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", prompt).casefold())
    # Apostrophes and invisible characters join, all other punctuation separates: "dog's" is "dogs", "cat,dog" is two words.
    kept = (c for c in text if c not in "'’" and unicodedata.category(c) != "Cf")
    spaced = "".join(" " if unicodedata.category(c)[0] in "PCZ" else c for c in kept)
    # Again, since a letter and its accent may have stood apart.
    return unicodedata.normalize("NFKC", " ".join(spaced.split())) or text


def invisible_characters(text: str) -> tuple[str, ...]:
    """Characters of `text` that nobody sees and that are no part of its spelling, as "U+200B ZERO WIDTH SPACE"."""
    found = {c for c in text if unicodedata.category(c) == "Cf" and c not in _JOINERS}
    return tuple(f"U+{ord(c):04X} {unicodedata.name(c, 'unnamed')}" for c in sorted(found))


def visible_text(text: str) -> str:
    """`text` in NFC, without the characters of `invisible_characters`: two texts that look the same become equal."""
    kept = (c for c in text if unicodedata.category(c) != "Cf" or c in _JOINERS)
    return unicodedata.normalize("NFC", "".join(kept))


def number(value: int | float) -> int | float:
    """A whole-valued float as a whole number (8.0 is 8), so that both pass where a whole number is expected."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
