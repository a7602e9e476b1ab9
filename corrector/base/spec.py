"""BaseSpec: a base, its precision, and its settings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from corrector.base.architecture import Layout
from corrector.base.sources import CheckpointSource, PipelineSource
from corrector.errors import UserError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "fp32", "bf16", "nf4"]
QUANTISED: frozenset[Precision] = frozenset({"nf4"})

_REQUIRED = ("transformer", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


@dataclass(frozen=True)
class SingleFile:
    """A checkpoint in one file with the base's transformer and perhaps its VAE."""

    source: CheckpointSource
    layout: Layout
    has_vae: bool


@dataclass(frozen=True)
class BaseSpec:
    """A complete Stable Diffusion 3 that is not loaded, with its settings; can be sent to other machines."""

    reference: str
    """As the user wrote it."""
    source: PipelineSource
    """Of the components that ``single_file`` does not hold."""
    single_file: SingleFile | None
    precision: Precision
    name: str
    revision: str
    """The hub's commit, a SHA-256 over weights and configurations, or the fingerprint of a prefix in S3; empty where
    `find_base` made the spec."""
    resolution: int
    """Side of its images in pixels."""
    max_sequence_length: int
    """T5 tokens of a prompt, in training and sampling."""
    num_inference_steps: int
    guidance_scale: float
    latent_channels: int
    vae_scale_factor: int
    """Pixels per latent pixel along each side."""
    text_width: int
    """Width of the text embeddings that the transformer reads."""

    @property
    def folder(self) -> Path:
        """The pipeline's folder on this machine with ``model_index.json`` and the configuration of every component."""
        return self.source.folder

    def component(self, name: str) -> Path:
        """The folder of one component on this machine; its weights are downloaded now if they are not there."""
        return self.source.component(name)

    @cached_property
    def transformer_config(self) -> dict[str, Any]:
        """``transformer/config.json``."""
        return json_object(self.folder / "transformer" / "config.json")

    @cached_property
    def text_tokens(self) -> int:
        """Number of text tokens that the transformer reads per prompt: CLIP's, then T5's."""
        tokenizer = json_object(self.folder / "tokenizer" / "tokenizer_config.json")
        return int(tokenizer["model_max_length"]) + self.max_sequence_length

    @property
    def identity(self) -> str:
        """Revision, and precision where weights are quantised: results depend on both."""
        return f"{self.revision}+{self.precision}" if self.precision in QUANTISED else self.revision

    def compute_dtype(self, device: torch.device | str) -> torch.dtype:
        """The transformer's dtype on ``device``: that of ``precision``, else bf16 on CUDA and fp32 elsewhere."""
        import torch  # takes a second, and a base is found and its files are checked without it

        if self.precision == "fp32":
            return torch.float32
        if self.precision == "bf16" or torch.device(device).type == "cuda":
            return torch.bfloat16
        return torch.float32


def components(folder: Path) -> set[str]:
    """The components in ``model_index.json``; raises :class:`UserError` for another kind of pipeline."""
    index = json_object(folder / "model_index.json")
    if index.get("_class_name") != "StableDiffusion3Pipeline":
        raise UserError(
            f"{folder / 'model_index.json'}: is a {index.get('_class_name')}; "
            "only StableDiffusion3Pipeline is supported"
        )
    return {name for name, kind in index.items() if isinstance(kind, list) and kind and kind[0] is not None}


def read_pipeline(reference: str, source: PipelineSource, *, name: str, precision: Precision) -> BaseSpec:
    """The base in ``source``, without its revision; ``base.json`` may give it another name.

    Raises :class:`UserError` where it is not a complete Stable Diffusion 3 or a setting is wrong.
    """
    folder = source.folder
    present = components(folder)
    for part in _REQUIRED:
        if part not in present or not (folder / part).is_dir():
            raise UserError(
                f'base "{reference}": {folder / part} is missing; the pipeline folder must be complete'
            )
    transformer = json_object(folder / "transformer" / "config.json")
    vae = json_object(folder / "vae" / "config.json")
    if (kind := transformer.get("_class_name")) != "SD3Transformer2DModel":
        raise UserError(
            f'base "{reference}": its transformer is a {kind}; only SD3Transformer2DModel is supported'
        )
    try:
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        latent_channels = int(vae["latent_channels"])
        resolution = int(transformer["sample_size"]) * factor
        text_width = int(transformer["joint_attention_dim"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder}: config.json of the transformer or VAE is not Stable Diffusion 3's: {error!r}"
        ) from error
    settings = _Settings.read(folder / "base.json", name=name, resolution=resolution)
    return BaseSpec(
        reference=reference,
        source=source,
        single_file=None,
        precision=precision,
        name=settings.name,
        revision="",
        resolution=settings.resolution,
        max_sequence_length=settings.max_sequence_length,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        latent_channels=latent_channels,
        vae_scale_factor=factor,
        text_width=text_width,
    )


@dataclass(frozen=True)
class _Settings:
    """The contents of ``base.json``; the defaults are those of ``StableDiffusion3Pipeline.__call__``."""

    name: str
    resolution: int
    max_sequence_length: int = 256
    num_inference_steps: int = 28
    guidance_scale: float = 7.0

    @classmethod
    def read(cls, path: Path, *, name: str, resolution: int) -> _Settings:
        stored: dict[str, Any] = {"name": name, "resolution": resolution}
        if path.is_file():
            stored |= json_object(path)
        fields = cls.__dataclass_fields__
        for key, value in stored.items():
            if key not in fields:
                raise UserError(f"{path}: unknown setting {key!r}; known are {', '.join(fields)}")
            _check_setting(path, key, value)
        return cls(**stored)


def _check_setting(path: Path, key: str, value: object) -> None:
    if key == "name":
        valid, expected = isinstance(value, str) and bool(value), "a text"
    elif key == "guidance_scale":
        valid, expected = isinstance(value, int | float) and 0 <= value <= 100, "a number from 0 to 100"
    else:
        limit = {"max_sequence_length": 512, "resolution": 8192, "num_inference_steps": 1000}[key]
        valid = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= limit
        expected = f"a whole number from 1 to {limit}"
    if not valid:
        raise UserError(f"{path}: {key} is {value!r}; expected {expected}")


def json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; raises :class:`UserError` where there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value
