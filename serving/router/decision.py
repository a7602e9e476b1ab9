"""What the router says about a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from serving.identity import AdapterIdentity

Route = Literal["requested", "exact", "paraphrase", "head", "base"]
"""requested: the client named the adapter or the base; exact: a corrected prompt itself; paraphrase: one that was registered
with it; head: an adapter's calibrated head; base: none of these."""


@dataclass(frozen=True)
class Decision:
    """Where one prompt goes, and why.

    Attributes:
        adapter: None for the base.
        alias: That the adapter was chosen by; None where a version was named, and for the base.
        score: Probability of the head that decided, or the highest of all heads where none did; None where none was asked.
        threshold: What `score` was held against.
        reason: In words, for the playground and the log.
        shadow: Adapters in shadow mode that would have been chosen.
    """

    route: Route
    adapter: AdapterIdentity | None
    reason: str
    alias: Literal["champion", "challenger"] | None = None
    score: float | None = None
    threshold: float | None = None
    shadow: tuple[AdapterIdentity, ...] = ()
