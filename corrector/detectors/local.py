"""Detectors whose weights the user has: judges of installed packages, and ONNX files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import onnxruntime
from torch import Tensor

from corrector.detectors.detector import Detector, Finding
from corrector.errors import UserError
from corrector.evaluation.verdicts import ImageJudge

PREFIX = "onnx:"


class InstalledJudge(Detector):
    """A judge that an installed package registers; whether it sends images anywhere is its own affair."""

    def __init__(self, judge: ImageJudge) -> None:
        self._judge = judge
        self.name = judge.name

    def judge(self, images: Tensor, prompts: Sequence[str]) -> list[Finding]:
        return [Finding(bool(right)) for right in self._judge(images, prompts)]


class OnnxScore(Detector):
    """An ONNX model that maps images `[N, 3, H, W]` in 0..1 to scores, one an image; it does not see the prompt.

    An image is right if its score is at least the threshold. The model runs on the CPU.
    """

    def __init__(self, reference: str) -> None:
        """`reference`: `FILE@THRESHOLD`.

        Raises:
            UserError: It is no such reference, or the file is no ONNX model of one input.
        """
        file, _, written = reference.rpartition("@")
        try:
            self._threshold = float(written)
        except ValueError:
            raise UserError(
                f"{PREFIX}{reference}: expected {PREFIX}FILE@THRESHOLD, such as {PREFIX}anatomy.onnx@0.5"
            ) from None
        self.name = f"{PREFIX}{Path(file).name}@{written}"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            content = Path(file).read_bytes()
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise UserError(f"{file}: cannot be read: {error.strerror}") from None
        except Exception as error:  # onnxruntime has a class of its own for each kind of mistake
            raise UserError(f"{file}: is no ONNX model that can be used: {_first_line(error)}") from None
        if len(self._session.get_inputs()) != 1:
            raise UserError(f"{file}: expected a model with one input, the images")

    def judge(self, images: Tensor, prompts: Sequence[str]) -> list[Finding]:
        """Raises UserError where the model's first output is not one number an image."""
        (given,) = self._session.get_inputs()
        try:
            scores = self._session.run(None, {given.name: images.float().cpu().numpy()})[0]
        except Exception as error:  # as above
            raise UserError(
                f"{self.name}: fails on images {tuple(images.shape)}: {_first_line(error)}"
            ) from None
        if scores.size != len(images):
            raise UserError(f"{self.name}: expected {len(images)} scores, one an image, found {scores.size}")
        return [
            Finding(None, "the score is not a number")
            if math.isnan(score)
            else Finding(score >= self._threshold, score=score)
            for score in map(float, scores.flatten())
        ]


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
