"""Decision: the adapter for a prompt, and why it was chosen."""

from dataclasses import dataclass
from typing import Literal

from serving.adapter_identity import AdapterIdentity

Route = Literal["requested", "exact", "paraphrase", "classifier", "base"]
"""requested: the client named the adapter or the base; exact: a corrected prompt itself; paraphrase: one that was registered
with it; classifier: it means the same in other words; base: none of these."""


@dataclass(frozen=True)
class Decision:
    """The adapter for one prompt, and the reason.

    Attributes:
        adapter: None for the base.
        alias: The alias by which the adapter was chosen; None where a version was named, and for the base.
        score: Probability that the prompt means the adapter's, or the nearest one's; None where no classifier was asked.
        threshold: The threshold for `score`.
        reason: A text for the playground and the log.
        shadow: Adapters in shadow mode that would have been chosen.
    """

    route: Route
    adapter: AdapterIdentity | None
    reason: str
    alias: Literal["champion", "challenger"] | None = None
    score: float | None = None
    threshold: float | None = None
    shadow: tuple[AdapterIdentity, ...] = ()

    @property
    def adapter_name(self) -> str:
        """The adapter's name, or "base"."""
        return self.adapter.name if self.adapter else "base"
