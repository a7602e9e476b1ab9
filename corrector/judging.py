"""Judges an adapter: draws its images and the base's until the verdict is known, scores both, and asks the gate."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from corrector.adapters import AdapterBank
from corrector.base import TextEmbeddings
from corrector.drawing import Candidate, draw
from corrector.errors import UserError
from corrector.evaluation import Assessment, Comparison, Exemplars, FeatureMemory, Scorecard
from corrector.evaluation.score import score
from corrector.exemplars import ExemplarSet
from corrector.exemplars.curation import REVIEW, Decisions, curate_images, without_dropped
from corrector.exemplars.sources import load_source
from corrector.loaded_base import Base
from corrector.prompt_inputs import ExemplarImages, decoded_exemplars, side_of
from corrector.prompts import EvaluationSettings, FailingPrompt, GateThresholds
from corrector.sampling import SampleRow


@dataclass(frozen=True, eq=False)
class Judged:
    """What was drawn of an adapter and of the base, and the scorecard.

    Attributes:
        candidate: The evaluation that ended; it knows the cost.
        card: The figures and the gate's verdict.
    """

    candidate: Candidate
    card: Scorecard

    @property
    def comparison(self) -> Comparison:
        """Text and seed of every image in `before` and `after`."""
        return self.candidate.assessment.drawn

    @property
    def before(self) -> Tensor:
        """`[N, 3, H, W]`, values 0 to 1: images of the base."""
        return self.candidate.assessment.before

    @property
    def after(self) -> Tensor:
        """The same rows with the adapter."""
        return self.candidate.assessment.after

    @property
    def status(self) -> str:
        """The status of a record with this scorecard."""
        return "corrected" if self.card.verdict.passed else "rejected"


def judge_adapter(
    entry: FailingPrompt,
    base: Base,
    bank: AdapterBank,
    exemplars: ExemplarImages,
    embeddings: Mapping[str, TextEmbeddings],
    *,
    memory: FeatureMemory,
    evaluation: EvaluationSettings,
    gate: GateThresholds,
    bar: Progress,
    seconds: dict[str, float],
) -> Judged:
    """Draw, score and judge the adapter in slot 1 of `bank` as a correction of `entry`.

    Args:
        embeddings: At least those of `texts_of`.
        seconds: Gets the wall-clock seconds of "sampling" and "scoring".

    Raises:
        UserError: The base cannot draw images of this size.
    """
    with timed(seconds, "sampling"):
        compared = Exemplars(exemplars.training, exemplars.held_out, decoded_exemplars(base, exemplars))
        assessment = Assessment(Comparison.of(entry, evaluation), compared, memory, evaluation, gate)
        side = side_of(entry, base.spec)
        candidate = Candidate(assessment, embeddings, slot=1)
        draw(
            [candidate],
            base,
            evaluation,
            side=side,
            sample=partial(_sample, base=base, bank=bank, side=side, bar=bar),
            predict=partial(base.sample_latents, bank=bank, height=side, width=side),
        )
    with timed(seconds, "scoring"):
        card = score(
            entry.name,
            assessment.drawn,
            assessment.before,
            assessment.after,
            compared,
            settings=evaluation,
            thresholds=gate,
            memory=memory,
            looks=assessment.looks,
            guard_shifts=assessment.guard_shifts,
            negative_shifts=assessment.negative_shifts,
        )
    return Judged(candidate, card)


def checked_exemplars(
    entry: FailingPrompt,
    base: Base,
    memory: FeatureMemory,
    decisions: Path | str | None,
    *,
    check: bool,
    remedy: str,
) -> ExemplarSet:
    """The exemplars of `entry`, with a note where they are doubtful.

    Args:
        decisions: The file of decisions about exemplars that a review page saved; those that it drops are left out.
        check: Whether they must be effective.
        remedy: How to use them all the same, for the error.

    Raises:
        UserError: They cannot be read, or are not effective.
    """
    side, seed = side_of(entry, base.spec), entry.hyperparameters.seed
    decided = Decisions.load(*([Path(decisions)] if decisions else []))
    loaded = load_source(entry.exemplars, Path(), resolution=side, seed=seed, fit=entry.exemplar_fit)
    found = without_dropped(loaded, decided)
    if not check:
        return found
    images = torch.cat([found.training_images(), found.held_out_images()])
    curation = curate_images(
        found.file_digests, images, memory=memory, prompt=entry.prompt, decisions=decided
    )
    if refusal := curation.refusal(entry.name):
        raise UserError(f"{refusal}\n{REVIEW}, and {remedy}")
    doubts = (f"the exemplars are doubtful: {reason}" for reason in curation.reasons)
    return replace(found, notes=(*found.notes, *doubts))


def progress_bar(*, shown: bool) -> Progress:
    """A bar for each stage, on the terminal or in the notebook."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=not shown)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Put the wall-clock seconds of the context into `seconds[stage]`."""
    started = time.monotonic()
    yield
    seconds[stage] = time.monotonic() - started


def _sample(rows: Sequence[SampleRow], base: Base, bank: AdapterBank, side: int, bar: Progress) -> Tensor:
    sampling = bar.add_task("sampling", total=len(rows))

    def report(done: int) -> None:
        bar.update(sampling, completed=done)

    return base.sample_rows(rows, bank, height=side, width=side, progress=report)
