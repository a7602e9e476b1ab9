"""The prompts of a diagnosis, from a list, a batch file, or what users of the endpoint flagged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from corrector.base import BaseSpec
from corrector.diagnosis import near_identical
from corrector.errors import UserError
from corrector.exemplars.sources import load_source
from corrector.prompt_inputs import side_of
from corrector.prompts import BatchError, BatchErrors, CorrectionBatch, FailingPrompt, load_batch
from corrector.prompts.loading import SUFFIXES
from corrector.prompts.prompt_list import SUFFIXES as LISTS
from corrector.prompts.prompt_list import read_prompt_list
from jobs.collect import gather, read_verdicts

_DATABASES = (".sqlite", ".db")
_FIRST_BYTES = 2**16


@dataclass(frozen=True)
class ListedPrompt:
    """One prompt, or several near-identical ones.

    Attributes:
        wordings: The first stands for all.
        entry: Its entry in the batch file, or None.
        flags: How often users flagged its wordings.
    """

    wordings: tuple[str, ...]
    entry: FailingPrompt | None = None
    flags: int = 0

    def side(self, spec: BaseSpec) -> int:
        """Width and height of its images in pixels."""
        return spec.resolution if self.entry is None else side_of(self.entry, spec)


@dataclass(frozen=True)
class PromptSource:
    """What the user asked about.

    Attributes:
        given: Number of texts that were given, repeated ones too.
        batch: The batch file, where it is one.
    """

    prompts: tuple[ListedPrompt, ...]
    given: int
    batch: CorrectionBatch | None = None


def read_prompts(source: str) -> PromptSource:
    """The prompts in a .txt, .csv or .tsv list, a batch file, or the endpoint's verdicts (a database or JSON Lines).

    Entries of a batch file stay as they are; of the other sources near-identical prompts are grouped.

    Raises:
        UserError: It cannot be read, or has mistakes, with their lines; or there is no prompt in it.
    """
    path = Path(source)
    if "://" in source or path.suffix.lower() in _DATABASES or _is_feedback(path):
        flagged = {one.prompt: one.count for one in gather(read_verdicts(source))}
        if not flagged:
            raise UserError(f"{source.rpartition('@')[2]}: nobody flagged a prompt")
        return _grouped(flagged, sum(flagged.values()))
    if path.suffix.lower() in LISTS and (listed := read_prompt_list(path)) is not None:
        return _grouped(dict.fromkeys(listed, 0), len(listed))
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{source}: cannot tell the format; expected a list of prompts ({', '.join(LISTS)}), a batch file "
            f"({', '.join(SUFFIXES)}) or the endpoint's verdicts (.jsonl, {', '.join(_DATABASES)}, a database's URL)"
        )
    batch = load_batch(path)
    prompts = [ListedPrompt((entry.prompt, *entry.paraphrases), entry) for entry in batch.prompts]
    return PromptSource(tuple(prompts), sum(len(each.wordings) for each in prompts), batch)


def load_exemplars(source: PromptSource, spec: BaseSpec) -> dict[str, Tensor]:
    """Wording -> the exemplars `[N, 3, H, W]` in 0..1 of its entry in the batch file.

    Raises:
        BatchErrors: Exemplars cannot be used, with the line of each.
    """
    batch, found, mistakes = source.batch, dict[str, Tensor](), list[BatchError]()
    for each in source.prompts:
        if batch is None or (entry := each.entry) is None:
            continue
        try:
            loaded = load_source(
                entry.exemplars,
                batch.path.parent,
                resolution=each.side(spec),
                seed=entry.hyperparameters.seed,
                fit=entry.exemplar_fit,
            )
        except UserError as error:
            mistakes.append(batch.mistake(entry, "exemplars", str(error).removeprefix("exemplars: ")))
            continue
        images = torch.cat([loaded.training_images(), loaded.held_out_images()])
        found |= dict.fromkeys(each.wordings, images)
    if mistakes:
        raise BatchErrors(mistakes)
    return found


def _grouped(flags: Mapping[str, int], given: int) -> PromptSource:
    groups = near_identical(flags)
    prompts = [ListedPrompt(group, flags=sum(flags[text] for text in group)) for group in groups]
    return PromptSource(tuple(prompts), given)


def _is_feedback(path: Path) -> bool:
    """Whether it is a .jsonl file whose first line is a verdict, not a prompt."""
    if path.suffix.lower() != ".jsonl" or not path.is_file():
        return False
    with path.open("rb") as file:
        first = file.read(_FIRST_BYTES).lstrip().partition(b"\n")[0]
    try:
        return "verdict" in json.loads(first)
    except (ValueError, TypeError, RecursionError):
        return False
