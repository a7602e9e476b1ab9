"""`python -m corrector.prompts check FILE` and `python -m corrector.prompts schema`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from corrector.batch_inputs import BatchInputs, read_inputs
from corrector.errors import UserError
from corrector.prompts.json_schema import json_schema
from corrector.prompts.mistakes import BatchErrors


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when all is well, 2 when a file or a setting is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m corrector.prompts", description="Batch files of failing prompts."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "check", help="report every mistake of batch files, with line and field, of their bases and exemplars"
    )
    check.add_argument("files", nargs="+", type=Path, metavar="FILE", help="YAML, JSON, JSONL, CSV or TSV")
    schema = commands.add_parser("schema", help="print the JSON Schema of batch files, for editors")
    schema.add_argument("--out", type=Path, metavar="FILE", help="write it there instead")
    options = parser.parse_args(arguments)
    try:
        if options.command == "schema":
            _write_schema(options.out)
            return 0
        return max([_check(path) for path in options.files])
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _check(path: Path) -> int:
    try:
        inputs = read_inputs(path)
    except UserError as error:
        count = len(error.errors) if isinstance(error, BatchErrors) else 1
        print(error, file=sys.stderr)
        print(f"{path}: {count} {'mistake' if count == 1 else 'mistakes'}", file=sys.stderr)
        return 2
    print(_summary(path, inputs))
    return 0


def _summary(path: Path, inputs: BatchInputs) -> str:
    batch, count = inputs.batch, len(inputs.batch.prompts)
    lines = [f"{path}: {count} {'prompt' if count == 1 else 'prompts'} on {batch.base}, no mistakes"]
    width = max(len(prompt.name) for prompt in batch.prompts)
    for prompt in batch.prompts:
        settings, exemplars = prompt.hyperparameters, inputs.exemplars[prompt.name]
        lines.append(
            f"  {prompt.name:{width}}  rank {settings.rank}, {settings.steps} steps "
            f"at {settings.learning_rate:g}, "
            f"{len(exemplars.training)} + {len(exemplars.held_out)} exemplars, "
            f"{len(prompt.paraphrases)} paraphrases, {len(prompt.guard_prompts)} guard prompts"
        )
    notes = [f"{name}: {note}" for name, each in inputs.exemplars.items() for note in each.notes]
    return "\n".join([*lines, *(f"  note: {note}" for note in (*batch.notes, *notes))])


def _write_schema(out: Path | None) -> None:
    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    if out is None:
        print(text, end="")
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{out}: cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
