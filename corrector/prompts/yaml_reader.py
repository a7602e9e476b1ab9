"""Reads YAML into located values: ruamel.yaml's nodes, scalars by YAML 1.2's core schema, bounded in size."""

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent, ScalarEvent
from ruamel.yaml.nodes import MappingNode, ScalarNode

from corrector.prompts.located_values import MAX_DEPTH, Node, Place, Scalar, quoted
from corrector.prompts.mistakes import MistakeLog, Unreadable
from corrector.values import number

MAX_NODES = 1_000_000
"""Values in one file, with aliases counted as often as they are used."""

_CONSTANTS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
    **{f"{sign}.{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")},
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,300}")
_BASED_INTEGER = re.compile(r"0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")

_IN_WORDS = {
    "mapping values are not allowed": 'a ":" where none can stand; quote the text, or check the indentation',
    "found character '\\t'": "a tab where none can stand; indent with spaces",
    "that cannot start any token": "text that starts with a special character; put it in quotes",
    "found unknown escape character": "an unknown escape; write backslashes twice, or use single quotes",
    "expected '<document start>'": "does not fit the lines above; check the indentation",
    "expected <block end>": "does not fit the lines above; check the indentation and the dashes of lists",
    "could not find expected ':'": 'a key without ":" after it',
}
_OPENED = {
    "quoted scalar": "text in quotes",
    "flow sequence": "a list in brackets",
    "flow mapping": "a mapping in braces",
}


def read_yaml(text: str, file: str, log: MistakeLog) -> Node | None:
    """The document's value, or None where there is none; duplicate keys are logged and reading goes on.

    Raises:
        Unreadable: It is not YAML, or holds more than plain data.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer
    yaml.composer.tell(file, log)
    yaml.max_depth = MAX_DEPTH
    try:
        root = yaml.compose(text)
        return None if root is None else _located(root, file, {})
    except MarkedYAMLError as error:
        raise Unreadable(*_in_words(error)) from None
    except (ValueError, OverflowError):
        message = "not YAML: an escape or a version number here has no meaning"
        raise Unreadable(yaml.reader.line + 1, message) from None


def plain_scalar(text: str) -> Scalar:
    """What an unquoted scalar means in YAML 1.2's core schema: `1e-4` is a number, `yes` is text, `8.0` is 8."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED_INTEGER.fullmatch(text):
        return int(text, 0)
    return number(float(text)) if _FLOAT.fullmatch(text) else text


def _in_words(error: MarkedYAMLError) -> tuple[int, str]:
    """Line and message; what is never closed is reported at the line that opens it."""
    problem = error.problem or "cannot be read"
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    if "another document" in problem:
        return line, "a second document starts here; write one document a file"
    if "maximum depth" in problem:
        return line, f"nested more than {MAX_DEPTH} levels deep"
    opened = next((words for part, words in _OPENED.items() if part in (error.context or "")), None)
    if opened and error.context_mark and ("end of stream" in problem or "expected ','" in problem):
        where = error.context_mark.line + 1
        return where, f"not YAML: {opened} starts here and is not closed properly by line {line}"
    words = next((words for part, words in _IN_WORDS.items() if part in problem), problem)
    return line, f"not YAML: {words}"


class _Composer(Composer):
    """Logs repeated keys, and refuses tags, endless aliases and too many values, while ruamel.yaml builds its nodes."""

    def tell(self, file: str, log: MistakeLog) -> None:
        """Set the file and its log; ruamel.yaml constructs the composer itself."""
        self.warn_double_anchors = False
        self._file = file
        self._log = log
        self._count = 0
        self._sizes: dict[int, int] = {}
        self._keys: dict[int, dict[str, int]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        if isinstance(parent, MappingNode) and index is None:
            self._check_key(event, self._keys.setdefault(id(parent), {}))
        alias = isinstance(event, AliasEvent)
        if not alias and event.ctag is not None:
            tag = str(event.ctag).replace("tag:yaml.org,2002:", "!!")
            raise Unreadable(event.start_mark.line + 1, f"the tag {quoted(tag)} is not supported; remove it")
        if alias and event.anchor not in self.anchors:
            message = f"no anchor &{event.anchor} before this alias *{event.anchor}"
            raise Unreadable(event.start_mark.line + 1, message)
        before = self._count
        node = super().compose_node(parent, index)
        if alias and id(node) not in self._sizes:
            raise Unreadable(
                event.start_mark.line + 1, f"the alias *{event.anchor} stands inside what it names"
            )
        self._count += self._sizes[id(node)] if alias else 1
        if self._count > MAX_NODES:
            raise Unreadable(
                event.start_mark.line + 1, f"more than {MAX_NODES:,} values, aliases written out"
            )
        self._sizes.setdefault(id(node), self._count - before)
        return node

    def _check_key(self, event: Any, lines: dict[str, int]) -> None:
        if not isinstance(event, ScalarEvent):
            raise Unreadable(event.start_mark.line + 1, 'a key must be text; write "key: value"')
        line = event.start_mark.line + 1
        if event.value in lines:
            self._log.add_repeated(Place(self._file, line), event.value, lines[event.value])
        lines.setdefault(event.value, line)


def _located(found: Any, file: str, built: dict[int, Node]) -> Node:
    """Convert a node of ruamel.yaml. The value of an alias is built once; the first of repeated keys counts."""
    if id(found) not in built:
        value: Any = found.value
        if isinstance(found, ScalarNode):
            value = value if found.style else plain_scalar(value)
        elif isinstance(found, MappingNode):
            value = {}
            for key, node in found.value:
                place = Place(file, key.start_mark.line + 1)
                value.setdefault(key.value, Node(place, _located(node, file, built).value))
        else:
            value = tuple(_located(node, file, built) for node in value)
        built[id(found)] = Node(Place(file, found.start_mark.line + 1), value)
    return built[id(found)]
