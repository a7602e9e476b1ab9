"""Reading a batch file: bytes to text, text to located values by format, located values to a batch."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from corrector.errors import UserError
from corrector.prompts.absent_values import without_nulls
from corrector.prompts.batch import CorrectionBatch
from corrector.prompts.csv_reader import read_csv
from corrector.prompts.error_messages import log_errors, log_unknown_key
from corrector.prompts.failing_prompt import HYPERPARAMETER_KEYS
from corrector.prompts.folders import allowed_path, with_slashes
from corrector.prompts.json_reader import read_json, read_json_lines
from corrector.prompts.json_schema import TABLES
from corrector.prompts.located_values import Node, Place, quoted
from corrector.prompts.mistakes import MistakeLog, Unreadable
from corrector.prompts.yaml_reader import read_yaml
from corrector.settings import Settings

MAX_BYTES = 4 * 2**20
"""Larger files are refused unread; five thousand prompts take about three megabytes."""

_READERS = {
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".json": read_json,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".csv": read_csv,
    ".tsv": read_csv,
}
SUFFIXES = tuple(_READERS)

_NOT_IN_FILES = ("path", "written")
"""Fields of the model that a file cannot set."""
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ENCODINGS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
"""Byte order mark -> encoding, of files that are not in UTF-8: Excel's "Unicode text", and what Windows PowerShell writes."""
_ZIP = b"PK\x03\x04"


def load_batch(path: Path, *, settings: Settings | None = None) -> CorrectionBatch:
    """The batch in a YAML, JSON, JSONL (.jsonl, .ndjson), CSV or TSV file; all of its mistakes are reported at once.

    YAML and JSON hold a mapping with `prompts` and, if wanted, `base`, `defaults`, `evaluation` and `gate`;
    `prompts` is a list, or names a CSV, TSV or JSONL file beside the batch file. JSONL holds one prompt per line, and may
    start with a line for the other keys. CSV and TSV hold one prompt per row, with `|` between the items of a list
    and, if wanted, a column `base`. A value means the same in all of them: a key without a value (null, an empty cell) is
    not given, 8.0 is the whole number 8, and texts are kept in NFC without invisible characters. Folders are relative to
    the batch file. Exemplar folders must exist and hold files, archives must exist; none is opened, and no address is
    connected to.

    Args:
        settings: The environment's settings; default: read now.

    Raises:
        BatchErrors: Every mistake in the file (the first thousand), with its line and field.
    """
    settings = settings or Settings.from_environment()
    log = MistakeLog()
    root = _read(path, str(path), log)
    if root is None:
        raise log.failure()
    absolute = path.absolute()
    root = without_nulls(
        _with_listed_prompts(root, absolute.parent, path.parent, settings.exemplar_roots, log)
    )
    for key in _NOT_IN_FILES:
        if node := root.get((key,)):
            log_unknown_key(log, node.place, (key,))
    document, context = _document(root, absolute), (absolute.parent, settings)
    try:
        batch = CorrectionBatch.model_validate(document, strict=True, context=context)
    except ValidationError as failure:
        log_errors(failure, root, log)
        raise log.failure() from None
    if log.errors:
        raise log.failure()
    return batch


def _read(path: Path, file: str, log: MistakeLog) -> Node | None:
    """The file's values; None where they cannot be read, which is logged."""
    try:
        text = read_text(path, SUFFIXES)
        before = len(log.errors)
        for number, line in enumerate(text.split("\n"), start=1):
            if found := _FORBIDDEN.search(line):
                code = f"U+{ord(found.group()):04X}"
                log.add(Place(file, number), "", f"an invisible control character, {code}; remove it")
        if len(log.errors) > before:
            return None
        if (root := _READERS[path.suffix.lower()](text, file, log)) is None:
            raise Unreadable(1, "nothing but comments; list the failing prompts under prompts")
        return root
    except Unreadable as error:
        log.add(Place(file, error.line), "", str(error))
        return None


def read_text(path: Path, suffixes: Sequence[str]) -> str:
    """The text of a file of at most `MAX_BYTES`, with the line ends of Unix and without a byte order mark.

    Raises:
        Unreadable: It is no such file, or its name ends otherwise than in one of `suffixes`.
    """
    try:
        if not path.is_file():
            raise Unreadable(None, "a folder; name the batch file in it" if path.is_dir() else "no such file")
        if path.suffix.lower() not in suffixes:
            expected = ", ".join(suffixes)
            raise Unreadable(None, f"cannot tell the format; the name must end in one of {expected}")
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Unreadable(None, f"cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise Unreadable(None, f"larger than {MAX_BYTES // 2**20} MiB; split it into several batches")
    return _decoded(content)


def _decoded(content: bytes) -> str:
    if content.startswith(_ZIP):
        raise Unreadable(
            1, "a zip archive or a spreadsheet; save it as plain text in UTF-8 (in Excel: CSV UTF-8)"
        )
    encoding = _ENCODINGS.get(content[:2], "utf-8-sig")
    try:
        text = _unix_lines(content.decode(encoding))
    except UnicodeDecodeError as error:
        if encoding != "utf-8-sig":
            raise Unreadable(
                1, f"not UTF-16, although it begins so ({error.reason}); copy it again"
            ) from None
        line = _unix_lines(content[: error.start].decode("latin-1")).count("\n") + 1
        message = (
            f"not UTF-8: byte 0x{content[error.start]:02x}; save the file as UTF-8 (in Excel: CSV UTF-8)"
        )
        raise Unreadable(line, message) from None
    if not text.strip():
        raise Unreadable(1, "the file is empty; list the failing prompts in it")
    return text


def _unix_lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _with_listed_prompts(
    root: Node, folder: Path, shown: Path, roots: tuple[Path, ...], log: MistakeLog
) -> Node:
    """`root` with the entries of the CSV, TSV or JSONL file that its `prompts` names, if it names one."""
    named = root.value.get("prompts") if isinstance(root.value, dict) else None
    if named is None or not isinstance(named.value, str) or not isinstance(root.value, dict):
        return root
    written = named.value.strip()
    prompts = Node(named.place, (), incomplete=True)
    try:
        kind = f"a {', '.join(f'.{ending}' for ending in TABLES[:-1])} or .{TABLES[-1]} file"
        if not written.lower().endswith(tuple(f".{ending}" for ending in TABLES)):
            raise UserError(f"expected a list, or the name of {kind}, found {quoted(written)}")
        path = allowed_path(written, folder, roots)
        if not path.is_file():
            remedy = with_slashes(written) or f"name {kind} beside this one"
            raise UserError(f"no file {quoted(written)}; {remedy}")
        listed = _read(path, str(shown / written), log)
    except UserError as error:
        log.add(named.place, "prompts", str(error))
        listed = None
    if listed is not None and isinstance(listed.value, dict):
        for key, node in listed.value.items():
            if key == "prompts":
                prompts = node
            else:
                log.add(node.place, key, f"belongs in {named.place.file}, which names this file")
    return Node(root.place, {**root.value, "prompts": prompts})


def _document(root: Node, path: Path) -> Any:
    """The input of CorrectionBatch: each prompt with the defaults, under a key `hyperparameters`."""
    if not isinstance(root.value, dict):
        return root.plain()
    document: dict[str, Any] = {
        key: node.plain() for key, node in root.value.items() if key not in ("$schema", *_NOT_IN_FILES)
    }
    defaults, prompts = document.get("defaults"), document.get("prompts")
    if isinstance(prompts, tuple):
        shared = defaults if isinstance(defaults, dict) else {}
        shared = {key: value for key, value in shared.items() if key in HYPERPARAMETER_KEYS}
        document["prompts"] = tuple(_prompt(entry, shared) for entry in prompts)
    return {**document, "path": path, "written": root}


def _prompt(entry: Any, defaults: dict[str, Any]) -> Any:
    if not isinstance(entry, dict):
        return entry
    apart = (*HYPERPARAMETER_KEYS, "hyperparameters")  # the latter is no key of a file, and refused there
    described = {key: value for key, value in entry.items() if key not in apart}
    own = {key: value for key, value in entry.items() if key in apart}
    return {**described, "hyperparameters": {**defaults, **own}}
