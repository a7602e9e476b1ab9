"""Reads CSV and TSV into located values: a header of keys, one prompt per row, `|` between a list's items."""

import csv
import io
import re

from pydantic import TypeAdapter, ValidationError

from corrector.prompts.error_messages import log_unknown_key
from corrector.prompts.failing_prompt import HYPERPARAMETER_KEYS, PROMPT_KEYS
from corrector.prompts.json_schema import described
from corrector.prompts.located_values import Node, Place, quoted
from corrector.prompts.mistakes import MistakeLog
from corrector.prompts.yaml_reader import plain_scalar

LIST_SEPARATOR = "|"
_REQUIRED = ("prompt", "exemplars")
_COLUMNS = ("base", *PROMPT_KEYS, *HYPERPARAMETER_KEYS)
_DELIMITERS = (",", ";", "\t")
_SEPARATOR_LINE = re.compile(r'"?sep=([^"])"?', re.IGNORECASE)
"""Excel's first line that names the delimiter; it is no header."""
_BOOLEAN = TypeAdapter(bool)


def read_csv(text: str, file: str, log: MistakeLog) -> Node:
    """The values of a batch file: one prompt per row; an empty cell means that its key is not given.

    The delimiter is a tab in a .tsv file, else what a first line `sep=;` names, else the most frequent of comma, semicolon
    and tab in the header. A column without a name is ignored where its cells are empty. The column `base` applies to the
    whole batch: its cells are equal or empty. A record of several lines is located at its first.
    """
    before = len(log.errors)
    root = Place(file, 1)
    (place, names), *rows = records(text, file, log) or [(root, [])]
    rows = [(where, _without_empty_end(cells, len(names))) for where, cells in rows]
    header, misspelt = _header(names, rows, place, log)
    for name in _REQUIRED:
        if names and name not in header and name not in misspelt:
            log.add(place, name, f"no column of this name; the columns are {', '.join(names)}")
    unread = [name for name in (*_REQUIRED, *misspelt) if name not in header]
    entries: list[Node] = []
    base: Node | None = None
    for place, cells in rows:
        if len(cells) != len(header):
            found = f"{len(cells)} cells, and the header has {len(header)}"
            log.add(place, "", f"{found}; quote cells that hold the delimiter")
            continue
        entry = {name: Node(place, None, incomplete=True) for name in unread}
        for key, cell in zip(header, cells, strict=True):
            if key is not None and (written := cell.strip()):
                entry[key] = _cell(key, written, place)
        given = entry.pop("base", None)
        if given is not None and base is not None and given.value != base.value:
            first = f"line {base.place.line} has {quoted(base.value)}"
            log.add(place, "base", f"{quoted(given.value)}, and {first}; a batch has one base")
        base = base or given
        entries.append(Node(place, entry))
    prompts = Node(root, tuple(entries), incomplete=len(log.errors) > before)
    return Node(root, {"prompts": prompts} | ({"base": base} if base else {}))


def records(text: str, file: str, log: MistakeLog) -> list[tuple[Place, list[str]]]:
    """The records with a cell that is not empty, each with its first line; what is no CSV is logged."""
    first_line = text.lstrip("\n").partition("\n")[0]
    delimiter = "\t" if file.lower().endswith(".tsv") else max(_DELIMITERS, key=first_line.count)
    if declared := _SEPARATOR_LINE.match(first_line):
        delimiter = declared[1]
        text = text.replace(first_line, "", 1)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records = []
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                records.append((Place(file, line), cells))
            line = reader.line_num + 1
    except csv.Error as error:
        unclosed = "end of data" in str(error)
        what = "a quote opens in this row and never closes" if unclosed else str(error)
        log.add(Place(file, line), "", f"not CSV: {what}; quote whole cells, and double quotes inside them")
    return records


def _without_empty_end(cells: list[str], columns: int) -> list[str]:
    """`cells` without empty ones beyond the header's columns, which spreadsheets leave behind."""
    return cells if any(cell.strip() for cell in cells[columns:]) else cells[:columns]


def _header(
    names: list[str], rows: list[tuple[Place, list[str]]], place: Place, log: MistakeLog
) -> tuple[list[str | None], set[str]]:
    """The key of each column, None where it cannot be used; and the keys that misspelt columns meant."""
    header: list[str | None] = []
    misspelt: set[str] = set()
    for number, written in enumerate(names, start=1):
        name = written.strip()
        if not name:
            cells = (cell for _, row in rows for cell in row[number - 1 : number] if cell.strip())
            if (cell := next(cells, None)) is not None:
                log.add(
                    place, "", f"column {number} has no name, and {quoted(cell)} in it; name or remove it"
                )
        elif name not in _COLUMNS:
            misspelt.add(log_unknown_key(log, place, ("prompts", 0, name)) or "")
        elif name in header:
            log.add(place, name, f"a second column of this name, column {number}; remove one")
        header.append(name if name in _COLUMNS and name not in header else None)
    return header, misspelt - {""}


def _cell(key: str, written: str, place: Place) -> Node:
    """The cell in the type of its key's values; its text if that fails. Numbers are written as in YAML."""
    kind = "string" if key == "base" else described(("prompts", 0, key))["type"]
    if kind == "array":
        parts = (part.strip() for part in written.split(LIST_SEPARATOR))
        return Node(place, tuple(Node(place, part) for part in parts if part))
    if kind == "string":
        return Node(place, written)
    if kind == "boolean":
        try:
            return Node(place, _BOOLEAN.validate_python(written))
        except ValidationError:
            return Node(place, written, typed=False)
    value = plain_scalar(written)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return Node(place, value) if is_number else Node(place, written, typed=False)
