"""Settings of an endpoint: the arguments of `serving.app:build`, in `config.yaml` or from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from corrector.base import Precision
from corrector.settings import Settings
from corrector.storage import Storage

MIB = 1024**2
Versions = Literal["reviewed", "any"]
"""reviewed: versions with the alias champion or challenger; any: also those that nobody has approved."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class CatalogueSettings(_Settings):
    """How the registry is polled."""

    poll_seconds: float = Field(default=1.0, gt=0)
    """Between two reads of the registry's aliases. With the replicas' own second, a reviewer's change counts
    within two, and the time that a read takes: 1.3 s at 950 names."""
    retry_seconds: float = Field(default=10.0, ge=0)
    """After which a version that could not be fetched or read is tried again."""
    fetches: int = Field(default=4, ge=1)
    """Versions that are fetched and checked at once."""
    unknown_seconds: float = Field(default=5.0, ge=0)
    """For how long a version that the registry lacks is not looked up again."""
    max_lookups: int = Field(default=32, ge=1)
    """Versions without an alias that may be looked up at once; one more is told to come again."""


class RouterSettings(_Settings):
    """How prompts are routed."""

    caution: float = Field(default=0.0, ge=-5, le=5)
    """Added to the logit from which on a prompt means the same as a registered one. A higher value corrects fewer prompts, and
    fewer wrong ones."""
    ambiguity: float = Field(default=0.25, ge=0)
    """Where the logits of the best two adapters differ by less than this, the prompt goes to the base."""


class EngineSettings(_Settings):
    """Sizes and bounds of one engine; every default serves the embedded base on two cores as well as SD3 on a large GPU."""

    device: str = "auto"
    """"cuda", "cpu", or "auto": the GPU where there is one."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads of a denoising step; None: as PyTorch chooses."""
    row_buckets: tuple[int, ...] = Field(default=(1, 2, 4, 8, 12, 16, 24, 32), min_length=1)
    """Rows that a denoising step may have; a request takes one, or two where it is guided. Steps are padded to
    the next bucket, and the largest is the most that is drawn at once."""
    slots: int = Field(default=32, ge=1)
    """Adapters on the device: no fewer than the largest bucket's rows."""
    rank: int = Field(default=16, ge=1, le=1024)
    """Highest rank of an adapter that can be served."""
    max_waiting: int = Field(default=256, ge=1)
    """Images that may wait; one more is told to come again."""
    max_steps: int = Field(default=100, ge=1)
    """Denoising steps that a request may ask for."""
    text_cache_bytes: int = Field(default=256 * MIB, ge=0)
    """Host memory for embeddings of prompts."""
    adapter_cache_bytes: int = Field(default=2048 * MIB, ge=0)
    """Host memory for adapters, pinned where there is a GPU."""
    disk_cache_bytes: int = Field(default=20 * 1024 * MIB, ge=0)
    """Disk for fetched adapters, below `cache`."""
    cache: Path | None = None
    """Folder for fetched adapters; None: below CORRECTOR_CACHE."""
    fetches: int = Field(default=4, ge=1)
    """Adapters that are fetched at the same time."""
    refused_seconds: float = Field(default=30.0, ge=0)
    """For how long an adapter that could not be fetched is not tried again."""
    stalled_seconds: float = Field(default=600.0, gt=0)
    """A denoising step that takes longer counts as hung, and the engine as broken. The first steps of a compiled
    transformer take minutes."""
    compiled: bool = False
    """Compile the transformer's blocks; worth its minutes at the start on a GPU."""

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


class IngressSettings(_Settings):
    """Bounds of requests, and where keys and feedback are."""

    keys: Path | None = None
    """File of API keys, see `python -m serving.ingress.keys`; it is read again when it changes. None: everybody
    may draw, which is logged at the start."""
    anonymous_versions: Versions = "reviewed"
    """Which versions of adapters may be drawn where no keys are asked for: reviewed, or any. With keys, each key
    says it (`--versions`)."""
    model_aliases: dict[str, str] = Field(default_factory=dict)
    """Further names for `model` in requests, each with what it stands for: auto (as the base's name: the prompt decides),
    base (no adapter), NAME or NAME@VERSION. {gpt-image-1: auto} lets clients draw that insist on this name. GET
    /v1/models lists them, while what they stand for is served."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages whose scripts may use the API from a browser, such as https://app.example; "*" for any. None
    by default; the endpoint's own page needs none. A browser's question beforehand (preflight) needs no key, and is
    in no log."""
    cors_credentials: bool = False
    """Whether those pages' requests may have cookies, for a proxy before the endpoint that asks for them; keys need none."""
    feedback: str | None = Field(default=None, repr=False)
    """Database of verdicts and recent requests: a SQLAlchemy URL, or a folder for a SQLite file; None: that of
    CORRECTOR_DATABASE, otherwise the folder "feedback" in CORRECTOR_RUNS. One replica writes it, on the head node. A
    network file system can hold the SQLite file if its POSIX locks work (NFS 4, EFS); a mounted bucket (s3fs, gcsfuse)
    cannot. On a disk of the head node alone, a new head begins with an empty file."""
    remembered_requests: int = Field(default=100_000, ge=1)
    """How many of the latest requests can still be given a verdict."""
    max_body_bytes: int = Field(default=64 * 1024, ge=1024)
    """Of a request's body."""
    body_seconds: float = Field(default=10.0, gt=0)
    """In which a request's body must have arrived."""
    max_prompt_chars: int = Field(default=4000, ge=1, le=5000)
    """Of a prompt and of a negative prompt. The text encoders read a few hundred words at most; the upper bound
    keeps both within the metadata of a JPEG."""
    max_request_pixels: int = Field(default=10 * 1024 * 1024, ge=1)
    """Pixels of all the images of a request together."""
    default_timeout: float = Field(default=120.0, gt=0)
    """Seconds a request may take that names no `timeout`."""
    max_timeout: float = Field(default=600.0, gt=0)
    """Highest `timeout` in seconds."""
    encoding_threads: int = Field(default=2, ge=1)
    """Images that are compressed at the same time; also those that the safety filter scores."""
    nsfw_threshold: float | None = Field(default=None, ge=0, le=1)
    """Images whose open_nsfw score is at least this are withheld. None: not judged, the default, because the
    score means nothing before somebody has looked at it on the base's own images; 0.9 is a place to begin."""

    @model_validator(mode="after")
    def _aliases_are_names(self) -> IngressSettings:
        for name, model in self.model_aliases.items():
            if not name.strip() or not model.strip() or name == model:
                raise ValueError(
                    f'model_aliases: "{name}" stands for "{model}"; write another name for a model, '
                    "such as gpt-image-1: auto"
                )
        return self

    @model_validator(mode="after")
    def _origins_are_those_of_pages(self) -> IngressSettings:
        for origin in self.cors_origins:
            if origin != "*" and not _is_origin(origin):
                raise ValueError(
                    f'cors_origins: "{origin}" is no origin as browsers send it; write scheme, host and any port but the '
                    "scheme's own, in small letters: https://app.example, http://localhost:3000"
                )
        if "*" in self.cors_origins and self.cors_credentials:
            raise ValueError(
                'cors_credentials: with "*" in cors_origins any page could act with its visitors\' cookies; name the origins'
            )
        return self

    @model_validator(mode="after")
    def _default_within_bound(self) -> IngressSettings:
        if self.default_timeout > self.max_timeout:
            raise ValueError(
                f"default_timeout is {self.default_timeout:g}; max_timeout is {self.max_timeout:g}"
            )
        return self


class Replicas(_Settings):
    """Autoscaling of a deployment: the number of its replicas follows the requests that wait for it or are in it."""

    least: int = Field(default=1, ge=1)
    most: int = Field(default=1, ge=1)
    target_requests: float = Field(default=16.0, gt=0)
    """Ongoing requests per replica to aim at."""


class ServingSettings(_Settings):
    """One endpoint; every default serves the embedded base on this machine."""

    base: str = "embedded"
    """As `--base` of jobs.correct: adapters of another are refused."""
    precision: Precision = "auto"
    """fp32, bf16, nf4, or auto."""
    tracking_uri: str | None = None
    """MLflow server; None: MLFLOW_TRACKING_URI, else the local registry."""
    registry_root: Path | None = None
    """Folder of the local registry; None: registry in CORRECTOR_RUNS."""
    catalogue: CatalogueSettings = CatalogueSettings()
    router: RouterSettings = RouterSettings()
    engine: EngineSettings = EngineSettings()
    ingress: IngressSettings = IngressSettings()
    engine_gpus: float | None = Field(default=None, ge=0)
    """GPUs of an engine; None: one where the cluster has any, else none."""
    engine_cpus: float = Field(default=1.0, ge=0)
    """CPUs that Ray sets aside for an engine."""
    ingress_cpus: float = Field(default=0.5, ge=0)
    """CPUs that Ray sets aside for an ingress."""
    engines: Replicas = Replicas()
    ingresses: Replicas = Replicas(target_requests=200)

    def located(self) -> ServingSettings:
        """These settings with every place filled in that the environment of this process decides."""
        found = Settings.from_environment()
        cache = found.cache / "serving"
        feedback = self.ingress.feedback or found.database or str(Storage.of(found.storage).disk / "feedback")
        return self.model_copy(
            update={
                "tracking_uri": self.tracking_uri or found.tracking_uri,
                "registry_root": self.registry_root or Storage.of(found.storage).disk / "registry",
                "engine": self.engine.model_copy(update={"cache": self.engine.cache or cache / "adapters"}),
                "ingress": self.ingress.model_copy(update={"feedback": feedback}),
            }
        )


def _is_origin(text: str) -> bool:
    """Whether this is an origin as the header Origin has it (RFC 6454, 6.2)."""
    try:
        parts = urlsplit(text)
        usual = (parts.scheme, parts.port) in (("http", 80), ("https", 443))
    except ValueError:
        return False
    plain = not set("@*\\ ") & set(text) and text == text.lower()
    return plain and not usual and bool(parts.hostname) and text == f"{parts.scheme}://{parts.netloc}"
