"""Measures the gate's error rates on rendered pictures whose truth is known, with the protocol as it runs, stops included.

    python -m tests.evaluation.measure_protocol [--trials 100] [--pool 160] [--only TEXT] [--out FILE.json]

Each trial draws pairs, exemplars and guard pictures at random from pools of one of four scenes, and an `Assessment` asks for
as many as it wants. "Passes" is the share of trials whose gate passes, with Wilson's 95 % interval; "images" the mean number
of images of an arm of the prompt itself. A row whose truth is a fault should fail, one whose truth is a fix should pass.
Guard prompts have their images drawn in every trial, as if predictions for all of them had moved.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import fmean
from zlib import crc32

import torch
from torch import Tensor

from corrector.evaluation import Assessment, Comparison, Exemplars, FeatureMemory, GateVerdict, judge
from corrector.evaluation.comparison import GuardSamples
from corrector.evaluation.comparison_images import ComparisonImages
from corrector.evaluation.distances import compare_frechet, frechet_distance
from corrector.evaluation.measures import guard_scores
from corrector.evaluation.score import measure_gating
from corrector.evaluation.scorecard_parts import PredictionShift
from corrector.evaluation.verdicts import right_share
from corrector.prompts import EvaluationSettings, GateThresholds
from tests.evaluation.renders import SCENES, STYLES, Pool
from tests.world.scenes import canonical_prompt

JUDGE_ACCURACY = 0.9
FID_INTERVAL = "outside the FID interval"


@dataclass(frozen=True)
class Arms:
    """The images of the prompt itself on both sides, which of them are right, and the exemplars they are compared with."""

    before: Tensor
    after: Tensor
    right_before: Sequence[bool]
    right_after: Sequence[bool]
    exemplars: Tensor


ArmsOf = Callable[[Pool, Tensor, Random], Arms]
"""The arms of the rows of a pool."""


def _mixed(before: float, after: float) -> ArmsOf:
    """Images of which these shares are right, on each side and in each pair by itself."""

    def arms(pool: Pool, rows: Tensor, random: Random) -> Arms:
        right_before, right_after = ([random.random() < share for _ in rows] for share in (before, after))
        return Arms(
            _either(right_before, pool.right_before[rows], pool.broken[rows]),
            _either(right_after, pool.right[rows], pool.still_broken[rows]),
            right_before,
            right_after,
            pool.good,
        )

    return arms


def _either(right: Sequence[bool], images: Tensor, others: Tensor) -> Tensor:
    return torch.where(torch.tensor(right)[:, None, None, None], images, others)


def _collapsed(pool: Pool, rows: Tensor, random: Random) -> Arms:
    """Right, but only four different pictures."""
    few = pool.right[[random.choice(rows[:4].tolist()) for _ in rows]]
    return Arms(pool.broken[rows], few, [False] * len(rows), [True] * len(rows), pool.good)


def _copied(pool: Pool, rows: Tensor, random: Random) -> Arms:
    """Copies of the training exemplars, which a trial takes from the first of the exemplars."""
    copies = pool.good[[random.randrange(4) for _ in rows]]
    return Arms(pool.broken[rows], copies, [False] * len(rows), [True] * len(rows), pool.good)


def _styled(style: str, fixed: bool) -> ArmsOf:
    """The exemplars' style, with or without the fix."""

    def arms(pool: Pool, rows: Tensor, random: Random) -> Arms:
        after = pool.right[rows] if fixed else pool.still_broken[rows]
        change = STYLES[style]
        flags = [False] * len(rows), [fixed] * len(rows)
        return Arms(pool.broken[rows], change(after), *flags, change(pool.good))

    return arms


def _restyled(style: str) -> ArmsOf:
    """The base's own pictures in the exemplars' style: the smallest trace of style shows in pairs of one picture."""

    def arms(pool: Pool, rows: Tensor, random: Random) -> Arms:
        change, wrong = STYLES[style], [False] * len(rows)
        return Arms(pool.broken[rows], change(pool.broken[rows]), wrong, wrong, change(pool.good))

    return arms


def _moved(pool: Pool, rows: Tensor, random: Random) -> Arms:
    """The place is right after, the limbs are not."""
    wrong = [False] * len(rows)
    return Arms(pool.elsewhere[rows], pool.broken[rows], wrong, wrong, pool.good)


@dataclass(frozen=True)
class Row:
    """One row of the table: what is true, and what is wanted of the gate."""

    name: str
    wanted: str
    arms: ArmsOf
    exemplars: tuple[int, int] = (12, 12)
    """Training and held-out ones."""
    judged: bool = False
    lost: float = 0.0
    """Share of one guard prompt's images that show the corrected prompt."""


FIX = _mixed(0.0, 1.0)
ROWS = (
    *(
        Row(f"nothing changed, base {share:.0%} right", "≤ 1 %", _mixed(share, share))
        for share in (0.0, 0.25, 0.5, 0.75)
    ),
    Row("true fix, 24 exemplars", "≥ 90 %", FIX),
    Row("true fix, 8 exemplars", "≥ 90 %", FIX, (4, 4)),
    Row("true fix, 5 exemplars", "a verdict", FIX, (3, 2)),
    Row("base 50 % right, all fixed", "", _mixed(0.5, 1.0)),
    Row("base 75 % right, all fixed", "", _mixed(0.75, 1.0)),
    Row("half still broken", "improved at most", _mixed(0.0, 0.5)),
    Row("half still broken, judge", "≤ 1 %", _mixed(0.0, 0.5), judged=True),
    Row("true fix, judge", "≥ 90 %", FIX, judged=True),
    Row("collapse onto 4 pictures", "≤ 5 %", _collapsed),
    Row("copies of 4 training exemplars of 8", "≤ 5 %", _copied, (4, 4)),
    *(Row(f"style only, {style}", "≤ 1 %", _styled(style, fixed=False)) for style in STYLES),
    *(Row(f"style only, {style}, the same pictures", "≤ 1 %", _restyled(style)) for style in STYLES),
    *(Row(f"style and fix, {style}", "≥ 90 %", _styled(style, fixed=True)) for style in STYLES),
    Row("place fixed, limbs broken", "improved at most", _moved),
    Row("place fixed, limbs broken, judge", "≤ 1 %", _moved, judged=True),
    Row("10 % of one guard lost", "≤ 10 %", FIX, lost=0.1),
    Row("25 % of one guard lost", "≤ 1 %", FIX, lost=0.25),
    Row("50 % of one guard lost", "≤ 1 %", FIX, lost=0.5),
)


class KnownJudge:
    """A judge that knows the truth and says it of JUDGE_ACCURACY of the images."""

    def __init__(self, right: dict[bytes, bool], trial: str) -> None:
        self.name = f"judge of {trial}"
        self._right = right

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Sequence[bool]:
        """Pictures of guard prompts, of which the judge was told nothing, are right."""
        found = []
        for image in images:
            key = image.numpy().tobytes()
            honest = Random(f"{self.name}/{crc32(key)}").random() < JUDGE_ACCURACY
            found.append(self._right.get(key, True) == honest)
        return found


@dataclass(frozen=True)
class Trial:
    """What one trial came to: whether the gate passed, its grade, and the images of an arm of the prompt itself."""

    passed: bool
    grade: str | None
    images: int


@cache
def _pool(scene: int, size: int) -> Pool:
    return Pool(SCENES[scene], size)


@cache
def _memory() -> FeatureMemory:
    """Features of all pictures of this process."""
    return FeatureMemory()


def run_trial(row_number: int, number: int, size: int) -> Trial:
    """One trial of a row of the table; `number` decides the scene and everything random."""
    row = ROWS[row_number]
    random, pool = Random(f"{row.name}/{number}"), _pool(number % len(SCENES), size)
    settings = EvaluationSettings(permutations=1000, seed=number)
    thresholds = GateThresholds()
    rows = torch.tensor(random.sample(range(size), settings.images))
    arms = row.arms(pool, rows, random)
    m, k = row.exemplars
    chosen = random.sample(range(4, len(pool.good)), m + k)
    if row.arms is _copied:
        chosen[:4] = range(4)
    exemplars = Exemplars(arms.exemplars[chosen[:m]], arms.exemplars[chosen[m:]])
    prompt, names = canonical_prompt(pool.scene), [canonical_prompt(scene) for scene in pool.neighbours]
    count = settings.guard_images
    comparison = Comparison(
        tuple((prompt, seed) for seed in range(settings.images)),
        tuple(GuardSamples(prompt=name, seeds=tuple(range(count))) for name in names),
    )
    harmed = random.randrange(len(names))
    guards = []
    for index, (base, other) in enumerate(pool.guards):
        some = random.sample(range(pool.guard_size), count)
        after = other[some]
        lost = torch.tensor([index == harmed and random.random() < row.lost for _ in some])
        leaked = pool.right[random.sample(range(size), count)]
        guards.append((base[some], torch.where(lost[:, None, None, None], leaked, after)))
    before, after = (
        torch.cat([own, *(pair[side] for pair in guards)])
        for side, own in enumerate((arms.before, arms.after))
    )
    memory = _memory()
    memory.judge = None
    if row.judged:
        images, truth = torch.cat([arms.before, arms.after]), [*arms.right_before, *arms.right_after]
        known = {image.numpy().tobytes(): right for image, right in zip(images, truth, strict=True)}
        memory.judge = KnownJudge(known, f"{row.name}/{number}")
    assessment = Assessment(comparison, exemplars, memory, settings, thresholds)
    places = {wanted: place for place, wanted in enumerate(comparison.rows)}
    while assessment.wanted or assessment.unscreened:
        if assessment.unscreened:
            assessment.screen(
                [PredictionShift(prompt=name, n=count, largest=1.0, mean=1.0) for name in names]
            )
        else:
            drawn = [places[wanted] for wanted in assessment.wanted]
            assessment.add(before[drawn], after[drawn])
    verdict = _verdict(assessment, settings, thresholds)
    return Trial(verdict.passed, verdict.grade, len(assessment.drawn.own))


def _verdict(assessment: Assessment, settings: EvaluationSettings, thresholds: GateThresholds) -> GateVerdict:
    """The gate's verdict as `score` gives it, without the figures that gate nothing."""
    drawn, memory = assessment.drawn, assessment.memory
    images = ComparisonImages.of(drawn, assessment.before, assessment.after, assessment.exemplars)
    with torch.inference_mode():
        measured = measure_gating("", drawn, images, memory, settings, thresholds)
        guards = guard_scores(images.features(memory), images, thresholds) if images.guards else []
    found = {"looks": assessment.looks, "guard_shifts": assessment.guard_shifts, "guards": tuple(guards)}
    return judge(measured.model_copy(update=found), thresholds)


def outside_intervals(number: int, size: int) -> list[tuple[str, float]]:
    """Shares of draws in which the interval of the FID difference does not hold its mean, for one scene."""
    pool, random, found = _pool(number, size), Random(number), []
    for title, before, after in (
        ("true fix", pool.broken, pool.right),
        ("nothing changed", pool.broken, pool.still_broken),
    ):
        for name in _memory().extractors:
            arms = [_memory().features(name, images) for images in (before, after, pool.good)]
            for n, k in ((16, 4), (16, 12), (32, 12)):
                draws = []
                for _ in range(200):
                    rows, others = random.sample(range(size), n), random.sample(range(size), n)
                    held_out = random.sample(range(len(pool.good)), k)
                    draws.append((arms[0][rows], arms[1][others], arms[2][held_out]))
                mean = fmean(frechet_distance(y, r) - frechet_distance(x, r) for x, y, r in draws)
                outside = 0
                for seed, draw in enumerate(draws[:100]):
                    interval = compare_frechet(*draw, resamples=200, seed=seed).difference
                    outside += not interval.low <= mean <= interval.high
                found.append((f"{title}, {n} images, {k} held-out exemplars, {name}", outside / 100))
    return found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=100, help="trials of a row")
    parser.add_argument("--pool", type=int, default=160, help="pictures of each kind and scene")
    parser.add_argument("--only", default="", help="rows and lines whose names hold this text")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args(arguments)
    table = []
    print("| what is true | wanted | passes | 95 % interval | images | grades |\n|---|---|---|---|---|---|")
    # A process keeps the features of its scenes, so the trials of a scene go to one process.
    workers = [
        ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (1,))
        for _ in range(given.processes)
    ]
    for row in (row for row in ROWS if given.only in row.name):
        begun = time.monotonic()
        running = [
            workers[number % len(SCENES) % len(workers)].submit(
                run_trial, ROWS.index(row), number, given.pool
            )
            for number in range(given.trials)
        ]
        trials = [each.result() for each in running]
        share = right_share([trial.passed for trial in trials])
        grades = sorted({trial.grade for trial in trials if trial.grade})
        images = fmean(trial.images for trial in trials)
        print(
            f"| {row.name} | {row.wanted} | {share.value:.1%} | {share.low:.1%} to {share.high:.1%} | "
            f"{images:.1f} | {', '.join(grades)} |",
            flush=True,
        )
        table.append(
            {"row": row.name, "wanted": row.wanted, "trials": [asdict(trial) for trial in trials]}
            | {"passes": share.model_dump(), "images": images, "seconds": time.monotonic() - begun}
        )
    outside = []
    if given.only in FID_INTERVAL:
        scenes = [
            workers[n % len(workers)].submit(outside_intervals, n, given.pool) for n in range(len(SCENES))
        ]
        outside = [each.result() for each in scenes]
    for worker in workers:
        worker.shutdown()
    for cells in zip(*outside, strict=True):
        print(f"{FID_INTERVAL}, {cells[0][0]}: {fmean(share for _, share in cells):.1%}")
    if given.out:
        given.out.write_text(json.dumps({"rows": table, "outside": outside}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
