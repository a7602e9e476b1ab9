"""Verdicts an image: which images are right, by whoever can say so, and what they prove about a correction.

A distance tells that images came nearer to the exemplars. Only a verdict on each image tells how many are right. An
`ImageJudge` gives them: a vision-language model, a detector of anomalies, people. Images come in pairs of one seed, so the
change is tested by McNemar's exact test; the share of right images has a Wilson interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Protocol

from corrector.errors import UserError
from corrector.evaluation.scorecard_figures import Interval

if TYPE_CHECKING:
    from torch import Tensor

JUDGES = "corrector.image_judges"
"""Entry point group: an installed package's judge is a callable that makes an `ImageJudge`."""


class ImageJudge(Protocol):
    """Says which images are right.

    A judge may also have an attribute `advisory`: why its verdicts are only shown (`advisory_reason`).

    Attributes:
        name: Stored with its verdicts and shown beside them.
    """

    name: str

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Sequence[bool]:
        """Whether each of `images` `[N, 3, H, W]` in 0..1 is a right picture of its prompt; deterministic."""
        ...


def advisory_reason(judge: ImageJudge) -> str | None:
    """Why the gate shows the judge's verdicts and does not follow them; None: it does, as for a judge that says nothing."""
    return getattr(judge, "advisory", None)


def installed_judge(name: str) -> EntryPoint:
    """Where an installed package has the judge of this name; nothing is loaded.

    Raises:
        UserError: No package registers it.
    """
    found = entry_points(group=JUDGES)
    if name not in found.names:
        known = ", ".join(sorted(found.names)) or "none is installed"
        raise UserError(f'evaluation.judge: no installed package registers a judge "{name}"; known: {known}')
    return found[name]


def named_judge(name: str | None) -> ImageJudge | None:
    """The judge that an installed package registers under this name; None for None.

    Raises:
        UserError: No package registers it, or it cannot be made.
    """
    if name is None:
        return None
    entry = installed_judge(name)
    try:
        judge: ImageJudge = entry.load()()
    except Exception as error:
        raise UserError(f'evaluation.judge: "{name}" cannot be loaded: {error}') from error
    return judge


def mcnemar_p(before: Sequence[bool], after: Sequence[bool]) -> float:
    """One-sided exact p that pairs turn right no more often than they turn wrong (McNemar 1947); 1 without a change."""
    from scipy.stats import binomtest  # this import takes a second

    won = sum(then and not was for was, then in zip(before, after, strict=True))
    lost = sum(was and not then for was, then in zip(before, after, strict=True))
    return float(binomtest(won, won + lost, alternative="greater").pvalue) if won + lost else 1.0


def right_share(right: Sequence[bool], level: float = 0.95) -> Interval:
    """The share of right images with its score interval (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(sum(right), len(right)).proportion_ci(level, "wilson")
    value = sum(right) / len(right)
    return Interval(low=float(found.low), value=value, high=float(found.high), level=level, method="Wilson's")
