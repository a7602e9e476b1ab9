"""Drafts paraphrases and hard negatives for a batch file: `python -m jobs.draft BATCH --out FILE`.

A language model writes them; `CORRECTOR_JUDGE_URL`, `_MODEL` and `_KEY` name it. The endpoint's router tells by them what an
adapter is for, so a person reads the new file, and deletes what is wrong, before it is trained. A prompt that has enough
hard negatives stays as it is.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from corrector.detectors.chat_api import BusyError, HopelessError, RefusedError, ask
from corrector.detectors.judge_settings import BUDGET_VARIABLE, PRICE_VARIABLE, JudgeSettings
from corrector.errors import UserError
from corrector.files import write_atomically
from corrector.prompts import FailingPrompt, load_batch
from corrector.prompts.exemplar_references import is_address
from corrector.prompts.failing_prompt import PromptText
from corrector.values import normalised
from jobs.inputs.batch_text import WrittenEntry, batch_text, sections_of, values_of
from jobs.inputs.exit_status import tells_mistakes

_INSTRUCTION = """You help to route prompts of an image generator. An adapter corrects the picture that one prompt asks for.
Answer with two lists.
same: {count} prompts that users would type for the same picture content: the same subjects doing the same thing in the same
relation and place. Style, medium, light, camera, looks and clothes are free. Use as many different words as you can, for the
subject, the action and the place alike: short ones and tags, long ones with details, passive, another order, colloquial,
professional.
different: {count} prompts that look nearly the same but ask for another picture. Change one thing each: subject, action, pose,
place, relation (under, behind), who does it to whom, number, negation, a second action, the opposite state, a part left out.
Keep the other words of the prompt or of your own wordings; half of them short, half with long details taken from `same`."""
_PROMPT: TypeAdapter[str] = TypeAdapter(PromptText)
_TEXTS = {"type": "array", "items": {"type": "string"}}
_SCHEMA = {
    "type": "object",
    "properties": {"same": _TEXTS, "different": _TEXTS},
    "required": ["same", "different"],
    "additionalProperties": False,
}


class Drafts(BaseModel):
    """What the model wrote: prompts with the same meaning, and near ones with another."""

    same: tuple[str, ...]
    different: tuple[str, ...]


def draft(entry: FailingPrompt, count: int, settings: JudgeSettings, taken: set[str]) -> FailingPrompt:
    """`entry` with up to `count` more paraphrases and hard negatives, without those that it has already.

    Args:
        taken: Normalised texts that are corrected in this batch, of which a text may have one correction; new ones are added.

    Raises:
        UserError: The model gives no answer, or one that is not two lists of prompts.
    """
    guards = "".join(f"\nStays as it is: {text}" for text in entry.guard_prompts)
    question = f"Prompt: {entry.prompt}" + "".join(f"\nSame: {text}" for text in entry.paraphrases) + guards
    try:
        drafts = Drafts.model_validate_json(
            ask(settings, _INSTRUCTION.format(count=count), question, (), _SCHEMA)
        )
    except (BusyError, HopelessError, RefusedError) as error:
        raise UserError(f"{entry.name}: {settings.model} at {settings.url}: {error}") from None
    except ValidationError:
        raise UserError(f"{entry.name}: {settings.model} did not answer with two lists of prompts") from None
    own = {
        normalised(text)
        for text in (entry.prompt, *entry.paraphrases, *entry.guard_prompts, *entry.hard_negatives)
    }
    same = _new(drafts.same, taken | own)[:count]
    taken |= set(map(normalised, same))
    different = _new(drafts.different, own | set(map(normalised, same)))[:count]
    more = {
        "paraphrases": (*entry.paraphrases, *same),
        "hard_negatives": (*entry.hard_negatives, *different),
    }
    return entry.model_copy(update=more)


def _new(texts: Sequence[str], known: set[str]) -> list[str]:
    """Those of `texts` that can be prompts and whose normalised text is not `known`, each once."""
    found: dict[str, str] = {}
    for text in texts:
        with suppress(ValidationError):
            prompt = _PROMPT.validate_python(text)
            found.setdefault(normalised(prompt), prompt)
    return [prompt for key, prompt in found.items() if key not in known]


@tells_mistakes
def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Run the command; 0 when every prompt has its drafts, 1 when the model failed on the way, 2 for a mistake of the user."""
    options = _parser().parse_args(arguments)
    free = {PRICE_VARIABLE: "0", BUDGET_VARIABLE: "0"}
    settings = JudgeSettings.from_environment(
        {**free, **(os.environ if environment is None else environment)}
    )
    if options.out.exists():
        raise UserError(f"{options.out}: is there already; name a new file")
    batch = load_batch(options.batch)
    taken = {normalised(text) for entry in batch.prompts for text in (entry.prompt, *entry.paraphrases)}
    drafted, failure = [], ""
    for entry in batch.prompts:
        if len(entry.hard_negatives) < options.count and not failure:
            try:
                entry = draft(entry, options.count - len(entry.hard_negatives), settings, taken)
            except UserError as error:
                failure = str(error)
        drafted.append(entry)
        print(
            f"{entry.name}: {len(entry.paraphrases)} paraphrases, {len(entry.hard_negatives)} hard negatives"
        )
    folder = options.out.parent
    entries = [WrittenEntry(values_of(entry, batch, folder) | _address(entry.exemplars)) for entry in drafted]
    sections = sections_of(batch, batch.base)
    if search := batch.search.model_dump(mode="json", exclude_defaults=True):
        sections["search"] = search
    head = [
        f"{options.batch.name} with prompts that {settings.model} drafted. Read them before the batch is trained: delete",
        "paraphrases that ask for another picture, and hard negatives that ask for the same.",
    ]
    write_atomically(options.out, batch_text(head, sections, entries))
    if failure:
        print(f"{failure}\nthe others are in {options.out}; go on from that file", file=sys.stderr)
        return 1
    print(f"read and mend {options.out}, then check it: python -m corrector.prompts check {options.out}")
    return 0


def _address(exemplars: str) -> dict[str, str]:
    """The address of exemplars with its query, which records do not hold: the new file is for the same people."""
    return {"exemplars": exemplars} if is_address(exemplars) else {}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m jobs.draft", description=__doc__.split("\n", 1)[0])
    parser.add_argument("batch", type=Path, help="YAML, JSON, JSONL or CSV file of failing prompts")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the new batch file, as YAML")
    parser.add_argument(
        "--count", type=int, default=20, metavar="N", help="of each kind (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
