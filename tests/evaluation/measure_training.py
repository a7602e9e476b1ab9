"""Measures what guard rows and steps bring: the example prompts, trained with fewer guard rows, at every so many steps.

    python -m tests.evaluation.measure_training [--rows 4 1 0] [--seeds 0 1] [--steps 60 120 300] [--out FILE.json]

For each number of guard rows a step (0: no preservation) and each seed, the four example prompts are trained in one pack. At
each number of steps the oracle judges images of the prompt. Of the guard prompts there is the largest shift of a prediction,
by which the gate decides whether to draw their images, and at the last step what those images show: how many are no longer
recognised, and how many the oracle calls right. "Forwards" are those of one row a step: an exemplar row counts two, its
backward included, a guard row three.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

import corrector
from corrector.adapters import AdapterBank
from corrector.base import TextEmbeddings
from corrector.drawing import predicted_shifts
from corrector.dreambooth import Engine
from corrector.evaluation import Comparison, FeatureMemory, Row
from corrector.evaluation.guards import recognised
from corrector.evaluation.images import as_stored
from corrector.evaluation.measures import lost_images
from corrector.evaluation.verdicts import right_share
from corrector.exemplars import load_exemplars
from corrector.loaded_base import Base
from corrector.prompt_inputs import ExemplarImages, fine_tune, texts_of
from corrector.prompts import EvaluationSettings, FailingPrompt, GateThresholds, load_batch
from tests.oracle.judge import OracleJudge

EXAMPLES = Path("jobs/examples")


@dataclass(frozen=True)
class Measured:
    """One adapter at one number of steps.

    Attributes:
        images: Images of the prompt, and of each guard prompt where any were drawn.
        right: Of the prompt's images, those that the oracle calls right.
        distances: Mean distance of each of the prompt's images to the held-out exemplars, by extractor.
        shifts: Largest shift of a prediction, by guard prompt.
        lost: Images no longer recognised, by guard prompt; empty where none were drawn.
        guards_right: Images that the oracle calls right, before and after, by guard prompt.
    """

    prompt: str
    guard_rows: int
    seed: int
    steps: int
    images: int
    right: int
    distances: dict[str, list[float]]
    shifts: dict[str, float]
    lost: dict[str, int]
    guards_right: dict[str, tuple[int, int]]


def with_hyperparameters(entry: FailingPrompt, guard_rows: int, seed: int, steps: int) -> FailingPrompt:
    """The prompt with so many guard rows a step."""
    preservation = {"preservation_batch_size": guard_rows} if guard_rows else {"preservation": "none"}
    hyperparameters = {**dict(entry.hyperparameters), **preservation, "seed": seed, "steps": steps}
    exemplars = str(EXAMPLES / entry.exemplars)
    return FailingPrompt.model_validate(
        {**dict(entry), "exemplars": exemplars, "hyperparameters": hyperparameters}
    )


@dataclass(frozen=True)
class InSlot:
    """An adapter as it is in its slot of the bank."""

    entry: FailingPrompt
    texts: Mapping[str, TextEmbeddings]
    held_out: Tensor
    bank: AdapterBank
    slot: int


class Measurement:
    """The base, the oracle, and what is known of the base's images."""

    def __init__(self, base: Base, images: int, *, draw_guards: bool) -> None:
        self.images, self.draw_guards = images, draw_guards
        self.base, self.judge, self.memory = base, OracleJudge(), FeatureMemory()
        self.evaluation = EvaluationSettings(images=images, guard_images=images, hard_negatives=0)
        self._before: dict[str, Tensor] = {}

    def train(
        self, entries: Sequence[FailingPrompt], guard_rows: int, steps: Sequence[int]
    ) -> Iterator[Measured]:
        """Train the prompts in one pack, and measure their adapters at each of `steps`."""
        base = self.base
        rank = max(entry.hyperparameters.rank for entry in entries)
        engine = Engine(base.transformer, base.scheduler, slots=len(entries), rank=rank, report_every=20)
        try:
            held_out = {}
            texts = {entry.name: base.encode(texts_of(entry, self.evaluation)) for entry in entries}
            for entry in entries:
                exemplars = load_exemplars(
                    Path(entry.exemplars), resolution=base.spec.resolution, seed=entry.hyperparameters.seed
                )
                images = ExemplarImages.of(exemplars)
                held_out[entry.name] = images.held_out
                task = fine_tune(entry, images, texts[entry.name], base, bank=engine.bank)
                engine.admit(task)
            for step in range(1, steps[-1] + 1):
                engine.step()
                if step not in steps:
                    continue
                for entry in entries:
                    name = entry.name
                    adapter = InSlot(entry, texts[name], held_out[name], engine.bank, engine.slot_of(name))
                    draw_guards = self.draw_guards and step == steps[-1]
                    yield self.measure(adapter, guard_rows, step, draw_guards=draw_guards)
        finally:
            engine.bank.remove()

    def measure(self, adapter: InSlot, guard_rows: int, step: int, *, draw_guards: bool) -> Measured:
        """The right images, the shifts and, if `draw_guards`, the images of the guard prompts."""
        entry, base = adapter.entry, self.base
        comparison = Comparison.of(entry, self.evaluation)
        side = base.spec.resolution
        predict = partial(base.sample_latents, bank=adapter.bank, height=side, width=side)
        shifts = predicted_shifts(
            entry.prompt, comparison.guards, adapter.texts, base, slot=adapter.slot, predict=predict
        )
        own = self._images(comparison.own, adapter, adapter.slot)
        lost: dict[str, int] = {}
        right: dict[str, tuple[int, int]] = {}
        if draw_guards:
            arms = [
                [
                    self._images([(guard.prompt, seed) for seed in guard.seeds], adapter, slot)
                    for guard in comparison.guards
                ]
                for slot in (0, adapter.slot)
            ]
            others = self._images(comparison.own, adapter, 0), own
            judged = {}
            for name in self.memory.extractors:
                before, after = ([self.memory.features(name, images) for images in arm] for arm in arms)
                judged[name] = recognised(
                    before, after, [self.memory.features(name, images) for images in others]
                )
            prompts = [guard.prompt for guard in comparison.guards]
            lost = dict(zip(prompts, lost_images(judged, GateThresholds()), strict=True))
            for prompt, before, after in zip(prompts, *arms, strict=True):
                right[prompt] = (
                    self._right(before, [prompt] * self.images),
                    self._right(after, [prompt] * self.images),
                )
        return Measured(
            prompt=entry.prompt,
            guard_rows=guard_rows,
            seed=entry.hyperparameters.seed,
            steps=step,
            images=self.images,
            right=self._right(own, [entry.prompt] * len(own)),  # of paraphrases, too
            distances={name: self._distances(name, own, adapter.held_out) for name in self.memory.extractors},
            shifts={shift.prompt: shift.largest for shift in shifts},
            lost=lost,
            guards_right=right,
        )

    def _images(self, rows: Sequence[Row], adapter: InSlot, slot: int) -> Tensor:
        """Images of the rows; the base's are drawn once."""
        key = str(rows)
        if slot == 0 and key in self._before:
            return self._before[key]
        images = as_stored(
            self.base.sample_rows(self.base.rows(rows, adapter.texts, slot=slot), adapter.bank)
        )
        if slot == 0:
            self._before[key] = images
        return images

    def _distances(self, extractor: str, images: Tensor, held_out: Tensor) -> list[float]:
        features, reference = (self.memory.features(extractor, each) for each in (images, held_out))
        found: list[float] = torch.cdist(features, reference).mean(1).tolist()
        return found

    def _right(self, images: Tensor, texts: Sequence[str]) -> int:
        return sum(self.judge(images, texts))


def _summary(found: Sequence[Measured], batch_size: int) -> str:
    """One line of the table: the adapters of one number of guard rows and of steps."""
    first = found[0]
    right = right_share([n < each.right for each in found for n in range(each.images)])
    largest = [max(each.shifts.values()) for each in found]
    guards = [each.guards_right[prompt] for each in found for prompt in each.guards_right]
    drawn = len(guards) * first.images
    kept = (
        f"{sum(a for _, a in guards) / drawn:.1%} ({sum(b for b, _ in guards) / drawn:.1%})" if guards else ""
    )
    lost = str(sum(sum(each.lost.values()) for each in found)) if guards else ""
    forwards = (2 * batch_size + 3 * first.guard_rows) * first.steps
    return (
        f"| {first.guard_rows} | {first.steps} | {forwards:,} | {right.value:.1%} [{right.low:.1%}, {right.high:.1%}] | "
        f"{fmean(largest):.2f}, {max(largest):.2f} | {lost} | {kept} |"
    )


def main(arguments: Sequence[str]) -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[4, 1, 0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, nargs="+", default=[60, 120, 300])
    parser.add_argument("--images", type=int, default=24, help="images of a prompt, and of each guard prompt")
    parser.add_argument("--no-guard-images", action="store_true", help="of guard prompts only the shifts")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    measurement = Measurement(
        corrector.load_base("embedded"), given.images, draw_guards=not given.no_guard_images
    )
    batch, found = load_batch(EXAMPLES / "people.yaml"), []
    print(
        "| guard rows | steps | forwards | right | largest shift: mean, worst | guard images lost | guard images right "
        "(base) |\n|---|---|---|---|---|---|---|"
    )
    for guard_rows in given.rows:
        for seed in given.seeds:
            entries = [
                with_hyperparameters(entry, guard_rows, seed, given.steps[-1]) for entry in batch.prompts
            ]
            found += list(measurement.train(entries, guard_rows, given.steps))
        for steps in given.steps:
            these = [each for each in found if (each.guard_rows, each.steps) == (guard_rows, steps)]
            print(_summary(these, batch.defaults.batch_size), flush=True)
        if given.out:
            given.out.write_text(json.dumps([asdict(each) for each in found], indent=1) + "\n")
    cells = [(each.shifts[prompt], lost) for each in found for prompt, lost in each.lost.items()]
    most = batch.gate.max_guard_shift
    for title, some in (
        ("some image lost", [shift for shift, lost in cells if lost]),
        ("no image lost", [shift for shift, lost in cells if not lost]),
    ):
        moved = sum(shift > most for shift in some)
        print(f"guard prompts with {title}: {len(some)}, of which {moved} moved by more than {most:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
