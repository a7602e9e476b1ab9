"""Make a batch file of prompts that users flagged: `python -m jobs.collect [VERDICTS ...] --out flagged.yaml`.

Reads the verdicts that the endpoint keeps (from `POST /v1/feedback`), gathers the bad ones by prompt, and
writes an entry for each, most flagged first, with the seeds of the bad images and the notes. People fill in the rest: good
images in the exemplar folders, paraphrases and guard prompts.

Exit status: 0 a file was written; 1 nothing was flagged often enough; 2 the user's mistake.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError
from rich.console import Console
from rich.table import Table

from corrector import feedback
from corrector.errors import UserError
from corrector.prompts.failing_prompt import slug
from corrector.settings import Settings
from corrector.values import normalised
from jobs.inputs.batch_text import TO_COMPLETE, WrittenEntry, batch_text, free_names, one_line, to_complete
from jobs.inputs.exit_status import tells_mistakes

_SHOWN = 12
"""Seeds and notes that an entry lists at most."""


class FlaggedRequest(BaseModel):
    """The request that a verdict is about."""

    prompt: str = Field(min_length=1)
    seeds: tuple[int, ...]
    adapter: str | None
    base_revision: str


class GivenVerdict(BaseModel):
    """One line of verdicts; further keys are ignored."""

    verdict: Literal["good", "bad"]
    note: str = ""
    given: float
    """Seconds since 1970."""
    key: str
    request: FlaggedRequest


@dataclass
class Flagged:
    """A flagged prompt, in the spelling of its first request."""

    prompt: str
    count: int = 0
    good: int = 0
    """Number of good verdicts."""
    keys: set[str] = field(default_factory=set)
    adapters: set[str] = field(default_factory=set)
    """`NAME@VERSION` of the adapters that drew it, or "the base"."""
    seeds: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@tells_mistakes
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 160)
    if options.out.exists():
        raise UserError(f"{options.out}: is there already; name a new file")
    verdicts = [verdict for source in options.verdicts for verdict in read_verdicts(source)]
    flagged = [one for one in gather(verdicts) if one.count >= options.at_least]
    if not flagged:
        console.print(f"{len(verdicts)} verdicts, and no prompt flagged {options.at_least} times")
        return 1
    options.out.write_text(batch_of(flagged, options.base, options.exemplars), encoding="utf-8")
    _show(flagged, console)
    console.print(
        f"{options.out}: {len(flagged)} prompts; `python -m corrector.prompts check` tells what they lack"
    )
    return 0


def read_verdicts(source: str) -> Iterator[GivenVerdict]:
    """The verdicts in a database (a SQLAlchemy URL or a SQLite file), or in a file of JSON Lines of earlier releases.

    Raises:
        UserError: It cannot be read, or a line is no verdict; the message has the line's number.
    """
    path = Path(source)
    if "://" in source or path.suffix != ".jsonl":
        for verdict in feedback.read_verdicts(source if "://" in source else path):
            yield GivenVerdict.model_validate(verdict)
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}; expected the endpoint's verdicts") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield GivenVerdict.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise UserError(
                f"{path}:{number}: {where}: {first['msg']}; expected a verdict of the endpoint"
            ) from error


def gather(verdicts: Iterable[GivenVerdict]) -> list[Flagged]:
    """The flagged prompts, sorted by the number of keys that flagged them, then by the number of flags."""
    found: dict[str, Flagged] = {}
    for verdict in sorted(verdicts, key=lambda verdict: verdict.given):
        request = verdict.request
        one = found.setdefault(normalised(request.prompt), Flagged(" ".join(request.prompt.split())))
        if verdict.verdict == "good":
            one.good += 1
            continue
        one.count += 1
        one.keys.add(verdict.key)
        one.adapters.add(request.adapter or "the base")
        one.seeds += [seed for seed in request.seeds if seed not in one.seeds]
        if verdict.note.strip():
            one.notes.append(verdict.note)
    return sorted(
        (one for one in found.values() if one.count), key=lambda one: (-len(one.keys), -one.count, one.prompt)
    )


def batch_of(flagged: Sequence[Flagged], base: str, exemplars: str) -> str:
    """The batch file, as YAML with comments."""
    written = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    head = [f"What users flagged; written by `python -m jobs.collect` on {written}.", *TO_COMPLETE]
    entries = [
        WrittenEntry(to_complete(name, one.prompt, exemplars, one.count), list(_comments(one)))
        for name, one in named(flagged).items()
    ]
    return batch_text(head, {"base": base}, entries)


def named(flagged: Iterable[Flagged]) -> dict[str, Flagged]:
    """The prompts by the names of their entries and exemplar folders."""
    all_flagged = list(flagged)
    return dict(zip(free_names(slug(one.prompt) for one in all_flagged), all_flagged, strict=True))


def _comments(one: Flagged) -> Iterator[str]:
    by = "1 key" if len(one.keys) == 1 else f"{len(one.keys)} keys"
    favour = f", {one.good} in favour" if one.good else ""
    yield f"flagged {one.count} times by {by}{favour}; drawn by {', '.join(sorted(one.adapters))}"
    more = f" and {len(one.seeds) - _SHOWN} more" if len(one.seeds) > _SHOWN else ""
    yield f"seeds {', '.join(map(str, one.seeds[:_SHOWN]))}{more}"
    for note in one.notes[:_SHOWN]:
        yield f"  {one_line(note)!r}"


def _show(flagged: Sequence[Flagged], console: Console) -> None:
    table = Table("prompt", "flagged", "keys", "drawn by")
    for one in flagged[:50]:
        table.add_row(one.prompt, str(one.count), str(len(one.keys)), ", ".join(sorted(one.adapters)))
    console.print(table)


def add_verdicts_argument(parser: argparse.ArgumentParser) -> None:
    """Add the argument `verdicts`, which `jobs.collect` and `jobs.nightly` share."""
    database = Settings.from_environment().database
    parser.add_argument(
        "verdicts",
        nargs="*" if database else "+",
        default=[database],
        help=f"the endpoint's {feedback.FILE_NAME}, or the URL of its database (default: that in CORRECTOR_DATABASE)",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jobs.collect", description=__doc__.split("\n", 1)[0])
    add_verdicts_argument(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="batch file to write")
    parser.add_argument(
        "--at-least", type=int, default=1, metavar="N", help="bad verdicts that a prompt needs"
    )
    parser.add_argument("--base", default="embedded", help="base of the batch file")
    parser.add_argument(
        "--exemplars",
        default="exemplars",
        help="folder, beside the batch file, with a folder for each prompt",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
