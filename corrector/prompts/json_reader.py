"""Reads JSON and JSON Lines into located values, strictly by RFC 8259 and with bounded nesting."""

import json
import re
from collections.abc import Iterator

from corrector.prompts.located_values import MAX_DEPTH, Node, Place, Scalar, quoted
from corrector.prompts.mistakes import MistakeLog, Unreadable
from corrector.values import number

HEADER_KEYS = frozenset(("$schema", "base", "defaults", "evaluation", "gate", "search"))
"""A first line with any of these holds the settings of a JSONL file instead of a prompt."""

_SPACES = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z_]\w{0,30}", re.ASCII)
_CONSTANTS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_LONGEST_NUMBER = 300


def read_json(text: str, file: str, log: MistakeLog, first_line: int = 1) -> Node:
    """The document's value; duplicate keys are logged and reading goes on.

    Args:
        first_line: The line of the file at which `text` starts.

    Raises:
        Unreadable: It is not JSON.
    """
    return _Parser(text, file, log, first_line).document()


def read_json_lines(text: str, file: str, log: MistakeLog) -> Node:
    """The values of a batch file with one object per line; the first may hold the settings instead of a prompt.

    A line that cannot be read is logged and the others are read all the same.
    """
    before = len(log.errors)
    entries: list[Node | None] = []
    for line_number, line in enumerate(text.split("\n"), start=1):
        try:
            entries += [read_json(line, file, log, line_number)] if line.strip() else []
        except Unreadable as error:
            log.add(Place(file, error.line), "", str(error))
            entries.append(None)
    header: dict[str, Node] = {}
    first = entries[0] if entries else None
    if first is not None and isinstance(first.value, dict) and not HEADER_KEYS.isdisjoint(first.value):
        header = dict(first.value)
        entries = entries[1:]
        if "prompts" in header:
            log.add(header.pop("prompts").place, "prompts", "write the prompts below, one object a line")
    read = tuple(entry for entry in entries if entry is not None)
    prompts = Node(Place(file, 1), read, incomplete=len(log.errors) > before)
    return Node(Place(file, 1), {**header, "prompts": prompts})


class _Parser:
    def __init__(self, text: str, file: str, log: MistakeLog, first_line: int) -> None:
        self._text = text
        self._file = file
        self._log = log
        self._position = 0
        self._counted = 0
        self._line = first_line

    def document(self) -> Node:
        value = self._value(1)
        if self._peek():
            raise self._unexpected("the end")
        return value

    def place(self, position: int) -> Place:
        """Positions must not decrease: lines are counted once."""
        self._line += self._text.count("\n", self._counted, position)
        self._counted = max(position, self._counted)
        return Place(self._file, self._line)

    def _refused(self, position: int, message: str) -> Unreadable:
        return Unreadable(self.place(position).line, f"not JSON: {message}")

    def _peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        spaces = _SPACES.match(self._text, self._position)
        self._position = spaces.end() if spaces else self._position
        return self._text[self._position : self._position + 1]

    def _take(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self._position += 1
        return True

    def _unexpected(self, expected: str) -> Unreadable:
        word = _WORD.match(self._text, self._position)
        found = {"": "the end of the text", '"': "text"}.get(
            self._peek(), quoted(word.group() if word else self._peek())
        )
        return self._refused(self._position, f"expected {expected}, found {found}")

    def _value(self, depth: int) -> Node:
        character = self._peek()
        place = self.place(self._position)
        if depth > MAX_DEPTH:
            raise self._refused(self._position, f"nested more than {MAX_DEPTH} levels deep")
        if self._take("{"):
            return Node(place, self._object(depth))
        if self._take("["):
            return Node(place, tuple(self._value(depth + 1) for _ in self._items("]")))
        if character == '"':
            return Node(place, self._string())
        if digits := _NUMBER.match(self._text, self._position):
            return Node(place, self._number(digits.group()))
        word = _WORD.match(self._text, self._position)
        if word is None or word.group() not in _CONSTANTS:
            raise self._unexpected("a value")
        self._position = word.end()
        return Node(place, _CONSTANTS[word.group()])

    def _object(self, depth: int) -> dict[str, Node]:
        mapping: dict[str, Node] = {}
        for _ in self._items("}"):
            if self._peek() != '"':
                raise self._unexpected("a key in double quotes")
            place = self.place(self._position)
            key = self._string()
            if not self._take(":"):
                raise self._unexpected(f'":" after {quoted(key)}')
            value = self._value(depth + 1)
            if key in mapping:
                self._log.add_repeated(place, key, mapping[key].place.line)
            else:
                mapping[key] = Node(place, value.value)
        return mapping

    def _items(self, end: str) -> Iterator[None]:
        """Yields before each item; reads the commas between them and the final `end`."""
        if self._take(end):
            return
        while True:
            yield
            if self._take(end):
                return
            comma = self._position
            if not self._take(","):
                raise self._unexpected(f'"," or "{end}"')
            if self._peek() == end:
                raise self._refused(comma, f'a comma before "{end}"; remove it')

    def _string(self) -> str:
        string = _STRING.match(self._text, self._position)
        if string is None:
            message = "text that starts here has no closing quote, or a wrong escape in it"
            raise self._refused(self._position, message)
        self._position = string.end()
        decoded: str = json.loads(string.group())
        return decoded

    def _number(self, written: str) -> int | float:
        if len(written) > _LONGEST_NUMBER:
            raise self._refused(self._position, f"a number of {len(written)} characters")
        self._position += len(written)
        value: int | float = json.loads(written)
        return number(value)
