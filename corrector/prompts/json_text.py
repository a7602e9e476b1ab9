"""JSON and JSON Lines with places; strict as RFC 8259, except that a file may not nest deeply."""

import json
import re

from corrector.prompts.errors import ErrorLog, Place
from corrector.prompts.nodes import MAX_DEPTH, Node, Scalar, key_name, quoted

HEADER_KEYS = ("base", "defaults", "evaluation", "gate")
"""A first line with any of these holds the settings of a JSONL file instead of a prompt."""

_SPACES = (" ", "\t", "\n", "\r")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z_]\w{0,30}", re.ASCII)
_CONSTANTS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_LONGEST_NUMBER = 300


class _ParseError(Exception):
    def __init__(self, position: int, message: str) -> None:
        super().__init__(message)
        self.position = position


def parse_json(text: str, file: str, log: ErrorLog, first_line: int = 1) -> Node | None:
    """The document's value, or None after a syntax error; duplicate keys are logged and reading goes on.

    Args:
        first_line: The line of the file at which `text` starts.
    """
    parser = _Parser(text, file, log, first_line)
    try:
        return parser.document()
    except _ParseError as refused:
        log.add(parser.place(refused.position), "", f"not JSON: {refused}")
        return None


def parse_json_lines(text: str, file: str, log: ErrorLog) -> Node:
    """One object a line, as a batch file's value; the first line may hold the settings instead of a prompt.

    A line that cannot be read is logged and the others are read all the same.
    """
    entries: list[Node] = []
    header: dict[str, Node] = {}
    before = len(log.errors)
    first = True
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        node = parse_json(line, file, log, number)
        if node is not None:
            if first and isinstance(node.value, dict) and any(key in node.value for key in HEADER_KEYS):
                header = dict(node.value)
                if "prompts" in header:
                    log.add(
                        header.pop("prompts").place, "prompts", "write the prompts below, one object a line"
                    )
            else:
                entries.append(node)
        first = False
    place = Place(file, 1)
    prompts = Node(place, tuple(entries), incomplete=len(log.errors) > before)
    return Node(place, {**header, "prompts": prompts})


class _Parser:
    def __init__(self, text: str, file: str, log: ErrorLog, first_line: int) -> None:
        self._text = text
        self._file = file
        self._log = log
        self._position = 0
        self._counted = 0
        self._line = first_line

    def document(self) -> Node:
        value = self._value(1)
        if self._peek():
            raise _ParseError(self._position, f"expected the end, found {self._found()}")
        return value

    def place(self, position: int) -> Place:
        """Positions must not go back: lines are counted once."""
        self._line += self._text.count("\n", self._counted, position)
        self._counted = max(position, self._counted)
        return Place(self._file, self._line)

    def _peek(self) -> str:
        while self._text[self._position : self._position + 1] in _SPACES:
            self._position += 1
        return self._text[self._position : self._position + 1]

    def _take(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self._position += 1
        return True

    def _found(self) -> str:
        if not self._peek():
            return "the end of the text"
        if self._peek() == '"':
            return "text"
        word = _WORD.match(self._text, self._position)
        return quoted(word.group() if word else self._text[self._position])

    def _value(self, depth: int) -> Node:
        character = self._peek()
        place = self.place(self._position)
        if depth > MAX_DEPTH:
            raise _ParseError(self._position, f"nested more than {MAX_DEPTH} levels deep")
        if self._take("{"):
            return Node(place, self._object(depth))
        if self._take("["):
            return Node(place, self._array(depth))
        if character == '"':
            return Node(place, self._string())
        if number := _NUMBER.match(self._text, self._position):
            return Node(place, self._number(number.group()))
        word = _WORD.match(self._text, self._position)
        if word is None or word.group() not in _CONSTANTS:
            raise _ParseError(self._position, f"expected a value, found {self._found()}")
        self._position = word.end()
        return Node(place, _CONSTANTS[word.group()])

    def _object(self, depth: int) -> dict[str, Node]:
        mapping: dict[str, Node] = {}
        if self._take("}"):
            return mapping
        while True:
            if self._peek() != '"':
                raise _ParseError(self._position, f"expected a key in double quotes, found {self._found()}")
            place = self.place(self._position)
            key = self._string()
            if not self._take(":"):
                raise _ParseError(self._position, f'expected ":" after {quoted(key)}, found {self._found()}')
            value = self._value(depth + 1)
            if key in mapping:
                self._log.add(
                    place, key_name(key), f"given twice; the first is in line {mapping[key].place.line}"
                )
            else:
                mapping[key] = Node(place, value.value)
            if self._take("}"):
                return mapping
            self._comma("}")

    def _array(self, depth: int) -> tuple[Node, ...]:
        items: list[Node] = []
        if self._take("]"):
            return ()
        while True:
            items.append(self._value(depth + 1))
            if self._take("]"):
                return tuple(items)
            self._comma("]")

    def _comma(self, end: str) -> None:
        position = self._position
        if not self._take(","):
            raise _ParseError(self._position, f'expected "," or "{end}", found {self._found()}')
        if self._peek() == end:
            raise _ParseError(position, f'a comma before "{end}"; remove it')

    def _string(self) -> str:
        string = _STRING.match(self._text, self._position)
        if string is None:
            raise _ParseError(
                self._position, "text that starts here has no closing quote, or a wrong escape in it"
            )
        self._position = string.end()
        decoded: str = json.loads(string.group())
        return decoded

    def _number(self, written: str) -> int | float:
        if len(written) > _LONGEST_NUMBER:
            raise _ParseError(self._position, f"a number of {len(written)} characters")
        self._position += len(written)
        number: int | float = json.loads(written)
        return number
