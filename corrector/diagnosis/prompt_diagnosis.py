"""PromptDiagnosis: which images of a prompt are drawn next, and what the detectors say of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from corrector.detectors import Detector, Finding
from corrector.diagnosis.failure_rate import SequentialTest, Verdict
from corrector.drawing import Block
from corrector.evaluation.comparison import own_rows
from corrector.evaluation.scorecard_figures import Interval
from corrector.prompts import EvaluationSettings


class PromptDiagnosis:
    """One prompt, with its other wordings, while its images are drawn and judged.

    The rows are those that a correction of the prompt with these paraphrases compares first, so it finds the images drawn.
    The first of the detectors that can judge the prompt decides; the others are shown beside it.

    Attributes:
        wordings: The prompt, then its other wordings, which take turns.
        rows: Text and seed of every image that may be drawn.
        findings: Detector -> what it said of each image so far, in the order of `rows`.
        not_run: Detector -> why it does not judge this prompt.
    """

    def __init__(
        self,
        wordings: Sequence[str],
        settings: EvaluationSettings,
        detectors: Sequence[Detector],
        test: SequentialTest,
    ) -> None:
        self.wordings = tuple(wordings)
        self.rows = own_rows(wordings, settings.model_copy(update={"images": test.images}))
        lacking = {each.name: each.lacks(self.prompt) for each in detectors}
        self._detectors = [each for each in detectors if lacking[each.name] is None]
        self._test = test
        self.not_run = {name: why for name, why in lacking.items() if why is not None}
        self.findings: dict[str, list[Finding]] = {each.name: [] for each in self._detectors}

    @property
    def prompt(self) -> str:
        """The wording that stands for all."""
        return self.wordings[0]

    @property
    def detector(self) -> str | None:
        """Name of the detector that decides; None where none can judge the prompt."""
        return self._detectors[0].name if self._detectors else None

    @property
    def drawn(self) -> int:
        """Images that were judged so far."""
        return len(next(iter(self.findings.values()), ()))

    @property
    def next_block(self) -> Block | None:
        """The rows to draw next; None: the verdict is clear, or nothing would make it clear."""
        block = self.rows[self.drawn : self.drawn + self._test.block]
        if not (block and self._detectors) or self._detectors[0].stopped or self.verdict != "undecided":
            return None
        return block

    def add(self, images: Tensor) -> None:
        """Judge the images `[N, 3, H, W]` in 0..1 of `next_block`."""
        texts = [text for text, _ in self.rows[self.drawn : self.drawn + len(images)]]
        for each in self._detectors:
            self.findings[each.name] += each.judge(images, texts)

    @property
    def verdict(self) -> Verdict:
        """Whether the prompt fails, by the detector that decides."""
        return self._test.verdict(self.failures())

    def failures(self, detector: str | None = None) -> list[bool]:
        """Whether each image with a verdict is wrong, by this detector; None: the one that decides."""
        found = self.findings.get(detector or self.detector or "", [])
        return [not each.is_right for each in found if each.is_right is not None]

    def rate(self, detector: str | None = None) -> Interval | None:
        """The share of wrong images among those with a verdict; None where there is none."""
        failures = self.failures(detector)
        return self._test.interval(sum(failures), len(failures)) if failures else None

    @property
    def failing_seeds(self) -> list[int]:
        """Seeds of the images that are wrong by the detector that decides."""
        found = self.findings.get(self.detector or "", [])
        return [seed for (_, seed), each in zip(self.rows, found, strict=False) if each.is_right is False]


def ranked(diagnoses: Iterable[PromptDiagnosis]) -> list[PromptDiagnosis]:
    """The prompts by their failure rate's lower bound, then by the rate, highest first; those without a verdict last."""

    def rank(each: PromptDiagnosis) -> tuple[float, float]:
        rate = each.rate()
        return (-rate.low, -rate.value) if rate else (1.0, 1.0)

    return sorted(diagnoses, key=rank)
