"""ExemplarSource: where one exemplar came from, what it cost, and who decided about it. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

SourceKind = Literal["folder", "archive", "dataset", "s3"]


class Decision(BaseModel):
    """A decision about one image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Literal["keep", "drop"]
    by: str = Field(min_length=1, max_length=200)
    """Who decided: a person's name, or `curation` where a verdict did."""
    why: str = Field(default="", max_length=1000)

    def __str__(self) -> str:
        return f"by {self.by}" + (f": {self.why}" if self.why else "")


class Generation(BaseModel):
    """The request to an images API that made an image, from the journal of its collection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    host: str | None = Field(default=None, description="The API's host; journals of older versions lack it.")
    prompt: str
    revised_prompt: str | None = None
    request_id: str = Field(description="The API's own where it answered with one, else the client's.")
    dollars: float = Field(
        ge=0, allow_inf_nan=False, description="The image's share of what its request cost."
    )


class ExemplarSource(BaseModel):
    """Where one exemplar came from and who decided about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Its file's name.")
    sha256: str = Field(description="Of its decoded pixels.")
    kind: SourceKind
    place: str = Field(
        description="The folder, archive or URL as the batch file names it, without credentials."
    )
    generation: Generation | None = Field(
        default=None, description="null: it was not generated, or not known."
    )
    decision: Decision | None = Field(default=None, description="null: nobody decided, and it is used.")

    @property
    def is_used(self) -> bool:
        """Whether it was trained on or held out; others were dropped."""
        return self.decision is None or self.decision.decision == "keep"


def used_digests(sources: Iterable[ExemplarSource]) -> dict[str, str]:
    """File name -> SHA-256 of each exemplar that is used."""
    return {each.name: each.sha256 for each in sources if each.is_used}


def dollars(sources: Iterable[ExemplarSource]) -> float:
    """What the generated images cost together, the dropped ones included."""
    return sum(each.generation.dollars for each in sources if each.generation)
