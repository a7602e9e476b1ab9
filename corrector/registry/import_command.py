"""`python -m corrector.registry import`: its arguments, and what it prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corrector.errors import UserError

_MAX_GUARD_FILE_BYTES = 1024**2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a .safetensors file, or its folder")
    parser.add_argument("--prompt", required=True, help="what the adapter is for")
    parser.add_argument("--name", help="its name in the registry (default: made from the prompt)")
    parser.add_argument("--paraphrases", nargs="+", default=[], metavar="TEXT")
    parser.add_argument(
        "--guards", nargs="+", default=[], metavar="TEXT", help="neighbouring prompts that must not change"
    )
    parser.add_argument(
        "--hard-negatives", nargs="+", default=[], metavar="TEXT", help="near prompts that it is not for"
    )
    parser.add_argument("--guard-file", type=Path, metavar="FILE", help="more of them, one a line")
    parser.add_argument("--exemplars", metavar="SOURCE", help="good images; without, nothing is judged")
    parser.add_argument("--base", default="embedded", help="the base it was trained on (embedded)")
    parser.add_argument("--images", type=_images, metavar="N", help="most images of the prompt on each side")
    parser.add_argument("--alpha", type=float, help="alpha of every layer, whatever the file says")
    parser.add_argument(
        "--without-text-encoders",
        action="store_true",
        help="leave out what the file changes in text encoders",
    )
    parser.add_argument("--decisions", type=Path, metavar="FILE", help="a review page's file on exemplars")
    parser.add_argument("--accept-exemplars", action="store_true", help="use them unchecked")
    parser.add_argument("--owner", metavar="WHO")


def run(options: argparse.Namespace, place: dict[str, Any], say: Callable[[str], None]) -> None:
    """Import the file, and say what it is and what was found."""
    from corrector.loaded_base import load_base
    from corrector.prompts import EvaluationSettings
    from corrector.registry.importing import SHOWN_IMAGES, import_adapter, import_entry
    from corrector.report.verdict_texts import NOT_JUDGED, grade_text, imported_text

    entry = import_entry(
        options.prompt,
        name=options.name,
        paraphrases=options.paraphrases,
        guards=(*options.guards, *_lines(options.guard_file)),
        hard_negatives=options.hard_negatives,
        exemplars=options.exemplars,
        owner=options.owner,
    )
    own = {"images": options.images} if options.images and options.exemplars else {}
    imported = import_adapter(
        options.file,
        entry,
        load_base(options.base),
        evaluation=EvaluationSettings(**own),
        images=SHOWN_IMAGES if options.images is None else options.images,
        alpha=options.alpha,
        without_text_encoders=options.without_text_encoders,
        decisions=options.decisions,
        accept_exemplars=options.accept_exemplars,
        progress=sys.stdout.isatty(),
        **place,
    )
    version, card = imported.version, imported.record.scorecard
    say(f"{version.name}/{version.version} {imported_text(imported.record)}")
    for note in imported.notes:
        say(f"  {note}")
    say(NOT_JUDGED if card is None else grade_text(card) or "the gate did not pass it")


def _images(text: str) -> int:
    if not (text.isdecimal() and (text == "0" or 2 <= int(text) <= 100_000)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected 0 or 2 to 100000")
    return int(text)


def _lines(path: Path | None) -> list[str]:
    """The lines of a file that are not empty."""
    if path is None:
        return []
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_GUARD_FILE_BYTES + 1)
        lines = text.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); write one guard prompt a line, in UTF-8"
        ) from error
    if len(text) > _MAX_GUARD_FILE_BYTES:
        raise UserError(
            f"{path}: is larger than {_MAX_GUARD_FILE_BYTES:,} bytes; write one guard prompt a line"
        )
    return [line.strip() for line in lines if line.strip()]
