"""What the readers of all formats produce: plain values with their places in the file."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

MAX_DEPTH = 16
"""Nesting beyond this is refused; a batch file needs four levels."""

Scalar = str | int | float | bool | None


class Place(NamedTuple):
    """The file as the user named it, and the line from 1 (None: the whole file)."""

    file: str
    line: int | None


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place; the place of a mapping's value is the line of its key.

    Attributes:
        value: A scalar, a tuple of nodes, or a dictionary of nodes.
        typed: Whether the format tells numbers from text; CSV does not.
        incomplete: Whether the value, or some of its items, could not be read; that has been reported.
    """

    place: Place
    value: "Scalar | tuple[Node, ...] | dict[str, Node]"
    typed: bool = True
    incomplete: bool = False

    def plain(self) -> object:
        """The value without places: scalars, tuples and dictionaries."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return tuple(node.plain() for node in self.value) if isinstance(self.value, tuple) else self.value

    def get(self, path: Sequence[str | int]) -> "Node | None":
        """The value at the end of `path`, where there is one."""
        node: Node | None = self
        for part in path:
            value = None if node is None else node.value
            if isinstance(value, tuple) and isinstance(part, int):
                node = value[part] if part < len(value) else None
            else:
                node = value.get(str(part)) if isinstance(value, dict) else None
        return node

    def find(self, path: Sequence[str | int]) -> "Node":
        """The value at the end of `path`, or the last existing one along the path."""
        return self.get(path) or self.find(path[:-1])


def quoted(value: object, limit: int = 60) -> str:
    """The value as an error message shows it: short, on one line, and harmless to a terminal."""
    if isinstance(value, str):
        shown = value if len(value) <= limit else value[: limit - 1] + "…"
        return '"' + "".join(map(_visible, shown)) + '"'
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else "a number of over 20 digits"
    if isinstance(value, float):
        return f"{value:g}"
    return "a mapping" if isinstance(value, dict) else "a list"


def key_name(key: str) -> str:
    """A key as the field of an error: bare where it is a word, else quoted."""
    return key if re.fullmatch(r"[A-Za-z_$][\w.$-]{0,60}", key, re.ASCII) else quoted(key)


def _visible(character: str) -> str:
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")
