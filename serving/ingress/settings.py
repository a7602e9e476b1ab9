"""What the HTTP interface allows."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator


class IngressSettings(BaseModel):
    """Bounds of requests, and where keys and feedback are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: Path | None = Field(
        default=None,
        description="File of API keys, see `python -m serving.ingress.keys`; it is read again when it changes. "
        "None: everybody may draw, which is logged at the start.",
    )
    feedback: Path | None = Field(
        default=None,
        description='Folder of verdicts and recent requests; None: "feedback" in CORRECTOR_RUNS.',
    )
    remembered_requests: int = Field(
        default=100_000, ge=1, description="How many of the latest requests can still be given a verdict."
    )
    max_body_bytes: int = Field(default=64 * 1024, ge=1024, description="Of a request's body.")
    body_seconds: float = Field(
        default=10.0, gt=0, description="In which a request's body must have arrived."
    )
    max_prompt_chars: int = Field(
        default=4000,
        ge=1,
        le=5000,
        description="Of a prompt and of a negative prompt. The text encoders read a few hundred words at most; "
        "the upper bound keeps both within the metadata of a JPEG.",
    )
    max_request_pixels: int = Field(
        default=10 * 1024 * 1024, ge=1, description="Pixels of all the images of a request together."
    )
    default_timeout: float = Field(
        default=120.0, gt=0, description="Seconds a request may take that names no `timeout`."
    )
    max_timeout: float = Field(default=600.0, gt=0, description="Highest `timeout` in seconds.")
    encoding_threads: int = Field(
        default=2,
        ge=1,
        description="Images that are compressed at the same time; also those that are judged.",
    )
    nsfw_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="Images whose open_nsfw score is at least this are withheld. None: not judged, the default, because the "
        "score means nothing before somebody has looked at it on the base's own images; 0.9 is a place to begin.",
    )

    @model_validator(mode="after")
    def _default_within_bound(self) -> IngressSettings:
        if self.default_timeout > self.max_timeout:
            raise ValueError(
                f"default_timeout is {self.default_timeout:g}; max_timeout is {self.max_timeout:g}"
            )
        return self
