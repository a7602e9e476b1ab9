"""How the registry is followed."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class CatalogueSettings(BaseModel):
    """How often to look, and what to do about what cannot be served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    poll_seconds: float = Field(
        default=1.0,
        gt=0,
        description="Between two looks at the registry's aliases. With the replicas' own second, what a reviewer does counts "
        "within two, and the time that a look takes: 1.3 s at 950 names.",
    )
    retry_seconds: float = Field(
        default=10.0,
        ge=0,
        description="After which a version that could not be had or read is asked for again.",
    )
    fetches: int = Field(default=4, ge=1, description="Versions that are fetched and checked at once.")
