"""What an engine may use, and how it shares it out."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

MIB = 1024**2


class EngineSettings(BaseModel):
    """Sizes and bounds of one engine; every default serves the embedded base on two cores as well as SD3 on a large GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field(default="auto", description='"cuda", "cpu", or "auto": the GPU where there is one.')
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of a denoising step; None: as PyTorch chooses."
    )
    row_buckets: tuple[int, ...] = Field(
        default=(1, 2, 4, 8, 12, 16, 24, 32),
        min_length=1,
        description="Rows that a denoising step may have; a request takes one, or two where it is guided. Steps are padded to "
        "the next bucket, and the largest is the most that is drawn at once.",
    )
    slots: int = Field(
        default=32, ge=1, description="Adapters on the device: no fewer than the largest bucket's rows."
    )
    rank: int = Field(default=16, ge=1, le=1024, description="Highest rank of an adapter that can be served.")
    max_waiting: int = Field(
        default=256, ge=1, description="Images that may wait; one more is told to come again."
    )
    max_steps: int = Field(default=100, ge=1, description="Denoising steps that a request may ask for.")
    text_cache_bytes: int = Field(
        default=256 * MIB, ge=0, description="Host memory for embeddings of prompts."
    )
    adapter_cache_bytes: int = Field(
        default=2048 * MIB, ge=0, description="Host memory for adapters, pinned where there is a GPU."
    )
    disk_cache_bytes: int = Field(
        default=20 * 1024 * MIB, ge=0, description="Disk for fetched adapters, below `cache`."
    )
    cache: Path | None = Field(
        default=None, description="Folder for fetched adapters; None: below CORRECTOR_CACHE."
    )
    fetches: int = Field(default=4, ge=1, description="Adapters that are fetched at the same time.")
    refused_seconds: float = Field(
        default=30.0,
        ge=0,
        description="For how long an adapter that could not be had is not asked for again.",
    )
    stalled_seconds: float = Field(
        default=600.0,
        gt=0,
        description="A denoising step that takes longer counts as hung, and the engine as broken. The first steps of a "
        "compiled transformer take minutes.",
    )
    compiled: bool = Field(
        default=False,
        description="Compile the transformer's blocks; worth its minutes at the start on a GPU.",
    )

    @model_validator(mode="after")
    def _room_for_every_row(self) -> EngineSettings:
        if list(self.row_buckets) != sorted(set(self.row_buckets)) or self.row_buckets[0] < 1:
            raise ValueError("row_buckets: expected ascending numbers from 1")
        if self.row_buckets[-1] < 2:
            raise ValueError(
                "row_buckets: a guided request takes two rows; the largest bucket must have room for them"
            )
        if self.slots < self.row_buckets[-1]:
            raise ValueError(
                f"slots is {self.slots}, and {self.row_buckets[-1]} rows may each have an adapter of their own; "
                "give as many slots, or smaller buckets"
            )
        return self
