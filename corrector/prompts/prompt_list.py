"""Reads prompts and nothing else: one a line of a .txt file, or one a row of a CSV or TSV file's column `prompt`."""

from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from corrector.prompts.csv_reader import records
from corrector.prompts.failing_prompt import PromptText
from corrector.prompts.loading import read_text
from corrector.prompts.located_values import Place
from corrector.prompts.mistakes import MistakeLog, Unreadable

TABLES = (".csv", ".tsv")
SUFFIXES = (".txt", *TABLES)
COLUMN = "prompt"
_TEXT = TypeAdapter(PromptText)
_EXEMPLARS = "exemplars"


def read_prompt_list(path: Path) -> list[str] | None:
    """The prompts in their order, repeated ones too; None for a table that is a batch: it has a column `exemplars`.

    Raises:
        BatchErrors: Every mistake in the file, with its line: no column `prompt`, a prompt that a batch file would refuse, or
            no prompt at all.
    """
    log, file = MistakeLog(), str(path)
    try:
        text = read_text(path, SUFFIXES)
    except Unreadable as error:
        log.add(Place(file, error.line), "", str(error))
        raise log.failure() from None
    if path.suffix.lower() in TABLES:
        header, *rows = records(text, file, log) or [(Place(file, 1), [])]
        names = [name.strip() for name in header[1]]
        if _EXEMPLARS in names:
            return None
        if COLUMN not in names:
            log.add(header[0], COLUMN, f"no column of this name; the columns are {', '.join(names)}")
            raise log.failure()
        column = names.index(COLUMN)
        written = [(place, cells[column]) for place, cells in rows if len(cells) > column]
    else:
        written = [(Place(file, number), line) for number, line in enumerate(text.split("\n"), start=1)]
    prompts = []
    for place, line in written:
        if not line.strip():
            continue
        try:
            prompts.append(_TEXT.validate_python(line))
        except ValidationError as error:
            log.add(place, COLUMN, _explained(error, line))
    if not (prompts or log.errors):
        log.add(Place(file, None), "", "no prompts; write one a line")
    if log.errors:
        raise log.failure()
    return prompts


def _explained(error: ValidationError, line: str) -> str:
    first = error.errors()[0]
    if first["type"] == "string_too_long":
        return f"expected at most {first['ctx']['max_length']} characters, found {len(line.strip())}"
    return first["msg"]
