"""Detector: the interface of what judges single images, and its findings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Finding:
    """What a detector says of one image.

    Attributes:
        is_right: Whether it is a right picture of its prompt; None: no verdict, which is no failure of the prompt.
        note: Why, for people.
        score: The figure behind the verdict, where the detector has one.
    """

    is_right: bool | None
    note: str = ""
    score: float | None = None


class Detector(ABC):
    """Judges images one by one.

    Attributes:
        name: Shown beside its findings.
        stopped: Why it gives no more verdicts, or None.
    """

    name: str
    stopped: str | None = None

    @abstractmethod
    def judge(self, images: Tensor, prompts: Sequence[str]) -> list[Finding]:
        """A finding for each of `images` `[N, 3, H, W]` in 0..1, as a picture of its prompt; deterministic."""

    def lacks(self, prompt: str) -> str | None:
        """What it needs to judge pictures of `prompt` and does not have; None where it can."""
        return None

    def sends(self, images: int) -> str | None:
        """How many images leave this machine if it judges `images`, whither, and at what price; None where none does."""
        return None
