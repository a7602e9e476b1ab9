"""Assessment: which images of a comparison are drawn next, until the gate's verdict is known.

First the prompt's own images, look by look (`corrector.evaluation.looks`). Of what has passed there, predictions for the guard
prompts and hard negatives (`corrector.evaluation.guard_shift`), and images of those guard prompts that have moved. Images of
hard negatives, which gate nothing, only of what has passed everything, and of those that have moved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from corrector.evaluation import measures
from corrector.evaluation.comparison import Comparison, GuardSamples, Row
from corrector.evaluation.comparison_images import ComparisonImages, Exemplars
from corrector.evaluation.feature_memory import FeatureMemory
from corrector.evaluation.features import torch_threads
from corrector.evaluation.looks import decide
from corrector.evaluation.score import measure_gating
from corrector.evaluation.scorecard import Look
from corrector.evaluation.scorecard_parts import PredictionShift
from corrector.prompts import EvaluationSettings, GateThresholds, look_shares


class Assessment:
    """The evaluation of one correction while its images are drawn.

    Attributes:
        exemplars: What both arms are compared with.
        memory: What the networks said of the images so far.
        drawn: Texts and seeds of what was drawn so far, and of what `wanted` asks for.
        looks: The looks at the prompt's own images so far.
        guard_shifts, negative_shifts: What the predictions for guard prompts and for hard negatives said.
        before, after: `[N, 3, H, W]`: images of the base and of the corrected model so far, in the order of `drawn.rows`.
    """

    def __init__(
        self,
        comparison: Comparison,
        exemplars: Exemplars,
        memory: FeatureMemory,
        settings: EvaluationSettings,
        thresholds: GateThresholds,
    ) -> None:
        """`comparison` is the whole protocol, of which a part is drawn."""
        self._whole, self.exemplars, self.memory = comparison, exemplars, memory
        self._settings, self._thresholds = settings, thresholds
        self._shares = look_shares(settings, thresholds)
        self.looks: tuple[Look, ...] = ()
        self.guard_shifts: tuple[PredictionShift, ...] = ()
        self.negative_shifts: tuple[PredictionShift, ...] = ()
        self.before = self.after = torch.empty(0, 3, 0, 0)
        self.drawn = comparison if not settings.stop_early else comparison.part(min(self._shares))

    @property
    def wanted(self) -> list[Row]:
        """Text and seed of the images to draw next, of the base and of the corrected model; none: the verdict is known."""
        return self.drawn.rows[len(self.before) :]

    @property
    def unscreened(self) -> tuple[GuardSamples, ...]:
        """The guard prompts and hard negatives whose predictions are wanted now, from the noises of their seeds.

        A judge of images sees what predictions do not tell, so with one all their images are drawn.
        """
        passed = bool(self.looks) and self.looks[-1].decision == "passed"
        drawn = self.drawn.guards or self.drawn.negatives
        screened = self._shifts or drawn or self.memory.judge or not self._settings.stop_early
        return (*self._whole.guards, *self._whole.negatives) if passed and not screened else ()

    def screen(self, shifts: Sequence[PredictionShift]) -> None:
        """Take the shifts of all prompts in `unscreened`, in their order."""
        guards = len(self._whole.guards)
        self.guard_shifts, self.negative_shifts = tuple(shifts[:guards]), tuple(shifts[guards:])
        self._draw_guards(self._moved(self.guard_shifts))

    def add(self, before: Tensor, after: Tensor, *, threads: int = 1) -> None:
        """Take the images `[N, 3, H, W]` of the rows in `wanted`, and decide what is wanted next."""
        self.before = torch.cat([self.before, before]) if len(self.before) else before
        self.after = torch.cat([self.after, after]) if len(self.after) else after
        with torch_threads(threads), torch.inference_mode():
            self._decide()

    @property
    def _shifts(self) -> tuple[PredictionShift, ...]:
        return (*self.guard_shifts, *self.negative_shifts)

    def _moved(self, shifts: Sequence[PredictionShift]) -> list[str]:
        return [shift.prompt for shift in shifts if shift.largest > self._thresholds.max_guard_shift]

    def _decide(self) -> None:
        n = len(self.drawn.own)
        if not self.looks or self.looks[-1].decision == "more":
            own = self.drawn.part(n)
            images = ComparisonImages.of(own, self.before[:n], self.after[:n], self.exemplars)
            measured = measure_gating("", own, images, self.memory, self._settings, self._thresholds)
            self.looks += (decide(measured, self._shares, self._thresholds),)
            if self.looks[-1].decision == "more":
                self.drawn = self._whole.part(min(look for look in self._shares if look > n))
            elif self.looks[-1].decision == "passed" and self._settings.stop_early and not self.unscreened:
                self._draw_guards([guard.prompt for guard in self._whole.guards])
        elif self._settings.stop_early and not self.drawn.negatives and self._guards_hold():
            self._draw_negatives()

    def _draw_guards(self, prompts: Sequence[str]) -> None:
        self.drawn = self._whole.part(len(self.drawn.own), guards=prompts)
        if not prompts:
            self._draw_negatives()

    def _draw_negatives(self) -> None:
        guards = [guard.prompt for guard in self.drawn.guards]
        if self._shifts:
            negatives = self._moved(self.negative_shifts)
        else:
            negatives = [negative.prompt for negative in self._whole.negatives]
        self.drawn = self._whole.part(len(self.drawn.own), guards=guards, negatives=negatives)

    def _guards_hold(self) -> bool:
        images = ComparisonImages.of(self.drawn, self.before, self.after, self.exemplars)
        if not images.finite:
            return False
        judged = measures.recognised_guards(images.features(self.memory))
        lost = measures.lost_images(judged, self._thresholds)
        return max(lost, default=0) <= self._thresholds.max_lost_guard_images
