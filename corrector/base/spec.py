"""BaseSpec: which base, where its files are, and the settings it was made for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corrector.base.revision import folder_revision
from corrector.errors import UserError

EMBEDDED_FOLDER = Path(__file__).parent / "embedded" / "weights"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?")
_HUB_FILES = [
    "model_index.json",
    "base.json",
    "transformer/*",
    "vae/*",
    "scheduler/*",
    "text_encoder*/*",
    "tokenizer*/*",
]
_HUB_IGNORED = ["*.bin", "*.pt", "*.ckpt", "*.msgpack", "*.onnx*", "*.fp16*", "*.fp16.safetensors*"]
_REQUIRED = ("transformer", "vae", "scheduler", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


@dataclass(frozen=True)
class BaseSpec:
    """A base: a complete Stable Diffusion 3 pipeline folder and the settings at which it draws best."""

    reference: str
    """What the user wrote: ``embedded``, a folder or a hub id."""
    folder: Path
    """The pipeline folder, with ``model_index.json``."""
    name: str
    revision: str
    """The hub's commit, or SHA-256 over the folder's weights and configurations."""
    resolution: int
    """Side of its images in pixels."""
    max_sequence_length: int
    """T5 tokens of a prompt, in training as in sampling."""
    num_inference_steps: int
    guidance_scale: float
    latent_channels: int
    vae_scale_factor: int
    """Pixels per latent pixel, along each side."""
    text_width: int
    """Width of the text embeddings that the transformer reads."""


def resolve_base(reference: str) -> BaseSpec:
    """Finds the base that ``reference`` names and reads its settings, not its weights.

    ``embedded`` is the base inside this package; a path is a folder as
    ``StableDiffusion3Pipeline.save_pretrained`` writes it; ``owner/name`` or ``owner/name@revision`` is a
    hub id, taken from the local cache or downloaded. Settings come from ``base.json`` beside
    ``model_index.json`` where there is one, and are SD3's otherwise. Raises :class:`UserError` where there
    is no such base or it is not a complete Stable Diffusion 3.
    """
    folder = EMBEDDED_FOLDER if reference == "embedded" else Path(reference)
    if reference.startswith("~/"):
        folder = folder.expanduser()
    if not folder.exists() and _HUB_ID.fullmatch(reference):
        snapshot = _hub_snapshot(reference)
        return _read(reference, snapshot, name=reference.partition("@")[0], revision=snapshot.name)
    if not (folder / "model_index.json").is_file():
        raise UserError(
            f'base "{reference}": {folder} has no model_index.json; expected "embedded", a folder with a '
            "Stable Diffusion 3 pipeline, or a hub id such as stabilityai/stable-diffusion-3.5-medium"
        )
    return _read(reference, folder, name=folder.resolve().name, revision=folder_revision(folder))


def components(folder: Path) -> set[str]:
    """Names of the parts that ``model_index.json`` lists as present; raises :class:`UserError` if it is no
    SD3's."""
    index = _json_object(folder / "model_index.json")
    if index.get("_class_name") != "StableDiffusion3Pipeline":
        raise UserError(
            f"{folder / 'model_index.json'}: is a {index.get('_class_name')}; "
            "only StableDiffusion3Pipeline is supported"
        )
    return {name for name, kind in index.items() if isinstance(kind, list) and kind and kind[0] is not None}


def _read(reference: str, folder: Path, *, name: str, revision: str) -> BaseSpec:
    present = components(folder)
    for part in _REQUIRED:
        if part not in present or not (folder / part).is_dir():
            raise UserError(
                f'base "{reference}": {folder / part} is missing; the pipeline folder must be complete'
            )
    transformer = _json_object(folder / "transformer" / "config.json")
    vae = _json_object(folder / "vae" / "config.json")
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
        folder=folder,
        name=settings.name,
        revision=revision,
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
    """What ``base.json`` may say; the defaults are those of ``StableDiffusion3Pipeline.__call__``."""

    name: str
    resolution: int
    max_sequence_length: int = 256
    num_inference_steps: int = 28
    guidance_scale: float = 7.0

    @classmethod
    def read(cls, path: Path, *, name: str, resolution: int) -> _Settings:
        stored: dict[str, Any] = {"name": name, "resolution": resolution}
        if path.is_file():
            stored |= _json_object(path)
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


def _hub_snapshot(reference: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    repository, _, revision = reference.partition("@")
    try:
        return Path(
            snapshot_download(
                repository, revision=revision or None, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_IGNORED
            )
        )
    except GatedRepoError as error:
        raise UserError(
            f'base "{reference}": its weights are gated; accept the licence at '
            f"https://huggingface.co/{repository} and set HF_TOKEN, or name a folder that holds them"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise UserError(
            f'base "{reference}": no such folder, and not found on the hub or in its local cache ({error}); '
            "check the name and the network, or name a folder that holds the weights"
        ) from error


def _json_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value
