"""The text of a batch file that a job writes for people to complete."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from corrector.prompts import CorrectionBatch, FailingPrompt
from corrector.prompts.exemplar_references import is_address

_LINE_LENGTH = 160


@dataclass(frozen=True)
class WrittenEntry:
    """An entry of the batch file, and comments above it, a line each."""

    values: Mapping[str, Any]
    comments: Sequence[str] = ()


def batch_text(head: Sequence[str], sections: Mapping[str, Any], entries: Iterable[WrittenEntry]) -> str:
    """The batch file, as YAML with comments.

    Args:
        head: Comments at the top, a line each.
        sections: What stands before the prompts: `base` and so on.
    """
    lines = [*(f"# {line}" for line in head), "", _yaml(sections), "prompts:"]
    for each in entries:
        lines += [f"  # {comment}" for comment in each.comments]
        first, *rest = _yaml(each.values).splitlines()
        lines += [f"  - {first}", *(f"    {line}" for line in rest), ""]
    return "\n".join(lines)


def to_complete(
    name: str, prompt: str, exemplars: str, priority: int, paraphrases: Sequence[str] = ()
) -> dict[str, Any]:
    """An entry whose exemplars and guard prompts a person gives; `exemplars` is the folder of all prompts' folders."""
    return {
        "name": name,
        "prompt": prompt,
        "exemplars": f"{exemplars}/{name}",
        "priority": min(priority, 1000),
        "paraphrases": list(paraphrases),
        "guard_prompts": [],
    }


def sections_of(batch: CorrectionBatch, base: str) -> dict[str, Any]:
    """What stands before the prompts in a batch file made from `batch`: the base, how results are compared, the gate."""
    sections: dict[str, Any] = {"base": base}
    for name, section in (("evaluation", batch.evaluation), ("gate", batch.gate)):
        if changed := section.model_dump(mode="json", exclude_defaults=True):
            sections[name] = changed
    return sections


def values_of(entry: FailingPrompt, batch: CorrectionBatch, folder: Path) -> dict[str, Any]:
    """The entry of `batch` for a batch file in `folder`, with its hyper-parameters where they are not the default."""
    values = entry.model_dump(mode="json", exclude={"hyperparameters"}, exclude_defaults=True)
    values["name"] = entry.name
    if not is_address(entry.exemplars):
        values["exemplars"] = os.path.relpath(batch.exemplar_folder(entry), folder)
    return values | entry.hyperparameters.model_dump(mode="json", exclude_defaults=True)


TO_COMPLETE = (
    "Put good images into each folder of exemplars (best 10 to 30), name paraphrases to correct with the prompt and",
    "guard prompts that must stay as they are; then check the file with `python -m corrector.prompts check`.",
)
"""What people do with entries of `to_complete`, for the head of the file."""


def free_names(slugs: Iterable[str]) -> Iterator[str]:
    """The names, with a number where one is taken."""
    taken: set[str] = set()
    for name in slugs:
        chosen, number = name, 2
        while chosen in taken:
            chosen, number = f"{name[:60]}-{number}", number + 1
        taken.add(chosen)
        yield chosen


def one_line(text: str) -> str:
    """`text` on one line of printable characters, cut off where it is long."""
    words = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return words if len(words) <= _LINE_LENGTH else words[: _LINE_LENGTH - 1] + "…"


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True, width=10**6).rstrip("\n")
