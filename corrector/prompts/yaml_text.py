"""YAML with places: PyYAML's events, scalars by YAML 1.2's core schema, and nothing that can explode."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from corrector.prompts.errors import ErrorLog, Place
from corrector.prompts.nodes import MAX_DEPTH, Node, Scalar, key_name, quoted

MAX_NODES = 1_000_000
"""Values in one file, with aliases counted as often as they are used."""

_CONSTANTS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,300}")
_BASED_INTEGER = re.compile(r"0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

_IN_WORDS = {
    "mapping values are not allowed": 'a ":" where none can stand; quote the text, or check the indentation',
    "found character '\\t'": "a tab where none can stand; indent with spaces",
    "that cannot start any token": "text that starts with a special character; put it in quotes",
    "found unknown escape character": "an unknown escape; write backslashes twice, or use single quotes",
    "expected <block end>": "does not fit the lines above; check the indentation and the dashes of lists",
    "could not find expected ':'": 'a key without ":" after it',
}
_OPENED = {
    "quoted scalar": "text in quotes",
    "flow sequence": "a list in brackets",
    "flow mapping": "a mapping in braces",
}


class _ParseError(Exception):
    def __init__(self, place: Place, message: str) -> None:
        super().__init__(message)
        self.place = place


def parse_yaml(text: str, file: str, log: ErrorLog) -> Node | None:
    """The document's value, or None where there is none; duplicate keys are logged and reading goes on."""
    loader = yaml.SafeLoader(text)
    try:
        return _Builder(loader, file, log).document()
    except _ParseError as refused:
        log.add(refused.place, "", str(refused))
    except yaml.MarkedYAMLError as error:
        _log_syntax_error(error, file, log)
    except (ValueError, OverflowError):
        log.add(
            Place(file, loader.line + 1), "", "not YAML: an escape or a version number here has no meaning"
        )
    return None


def plain_scalar(text: str) -> Scalar:
    """What an unquoted scalar means in YAML 1.2's core schema: `1e-4` is a number, `yes` is text."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _BASED_INTEGER.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def _log_syntax_error(error: yaml.MarkedYAMLError, file: str, log: ErrorLog) -> None:
    """Log PyYAML's complaint; what is opened and never closed is blamed on the line that opens it."""
    problem = error.problem or "cannot be read"
    opened = next((words for part, words in _OPENED.items() if part in (error.context or "")), None)
    if opened and error.context_mark and ("end of stream" in problem or "expected ','" in problem):
        end = error.problem_mark.line + 1 if error.problem_mark else error.context_mark.line + 1
        message = f"not YAML: {opened} starts here and is not closed properly by line {end}"
        log.add(Place(file, error.context_mark.line + 1), "", message)
        return
    mark = error.problem_mark or error.context_mark
    words = next((words for part, words in _IN_WORDS.items() if part in problem), problem)
    log.add(Place(file, mark.line + 1 if mark else 1), "", f"not YAML: {words}")


class _Builder:
    def __init__(self, loader: yaml.SafeLoader, file: str, log: ErrorLog) -> None:
        self._loader = loader
        self._file = file
        self._log = log
        self._anchors: dict[str, tuple[Node, int] | None] = {}
        self._nodes = 0

    def document(self) -> Node | None:
        event = self._next()
        while isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
            event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            return None
        root = self._node(event, 1)
        self._next()
        following = self._next()
        if isinstance(following, yaml.DocumentStartEvent):
            raise _ParseError(
                self._place(following), "a second document starts here; write one document a file"
            )
        return root

    def _next(self) -> Any:
        return self._loader.get_event()  # type: ignore[no-untyped-call]

    def _place(self, event: Any) -> Place:
        return Place(self._file, event.start_mark.line + 1)

    def _node(self, event: Any, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        place = self._place(event)
        if event.tag is not None:
            raise _ParseError(place, f"the tag {quoted(_short_tag(event.tag))} is not supported; remove it")
        if depth > MAX_DEPTH:
            raise _ParseError(place, f"nested more than {MAX_DEPTH} levels deep")
        before = self._nodes
        self._count(place, 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            plain = event.style in (None, "")
            node = Node(place, plain_scalar(event.value) if plain else event.value)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Node(place, tuple(self._items(depth)))
        else:
            node = Node(place, self._mapping(depth))
        if event.anchor is not None:
            self._anchors[event.anchor] = (node, self._nodes - before)
        return node

    def _items(self, depth: int) -> Iterator[Node]:
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            yield self._node(event, depth + 1)

    def _mapping(self, depth: int) -> dict[str, Node]:
        mapping: dict[str, Node] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            place = self._place(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise _ParseError(place, 'a key must be text; write "key: value"')
            key = event.value
            value = self._node(self._next(), depth + 1)
            if key in mapping:
                self._log.add(
                    place, key_name(key), f"given twice; the first is in line {mapping[key].place.line}"
                )
            else:
                mapping[key] = Node(place, value.value)
        return mapping

    def _alias(self, event: Any) -> Node:
        place = self._place(event)
        if event.anchor not in self._anchors:
            raise _ParseError(place, f"no anchor &{event.anchor} before this alias *{event.anchor}")
        anchored = self._anchors[event.anchor]
        if anchored is None:
            raise _ParseError(place, f"the alias *{event.anchor} stands inside what it names")
        node, size = anchored
        self._count(place, size)
        return node

    def _count(self, place: Place, size: int) -> None:
        self._nodes += size
        if self._nodes > MAX_NODES:
            raise _ParseError(place, f"more than {MAX_NODES:,} values, aliases written out")


def _short_tag(tag: str) -> str:
    """A tag as it is usually written: `!!python/object`."""
    return tag.replace("tag:yaml.org,2002:", "!!")
