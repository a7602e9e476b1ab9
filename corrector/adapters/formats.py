"""Adapter files: diffusers' ``pytorch_lora_weights.safetensors`` beside PEFT's ``adapter_config.json``.

The names of the weights, and alpha in the file's metadata, are those of
``StableDiffusion3Pipeline.save_lora_weights`` in diffusers 0.42 (``loaders/lora_base.py``), so
``load_lora_weights`` reads what :func:`save_adapter` writes.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from corrector.adapters.adapter import Adapter, AdapterError

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
CONFIG_NAME = "adapter_config.json"
DIGEST_NAME = WEIGHTS_NAME + ".sha256"

MAX_FILE_BYTES = 2 * 1024**3
"""Larger files are refused unread; rank 128 on every attention Linear of SD3.5-large is about 0.6 GiB in
fp32."""
MAX_CONFIG_BYTES = 4 * 1024**2

_PREFIXES = ("transformer.", "base_model.model.", "")
_DIFFUSERS_KEY = "lora_adapter_metadata"
_LINEAGE_KEY = "lineage"
_UNSUPPORTED = (
    "use_dora",
    "use_rslora",
    "use_qalora",
    "lora_bias",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "modules_to_save",
)
_REMEDY = "convert it to diffusers' names, transformer.<module>.lora_A.weight and .lora_B.weight"
_FOREIGN: tuple[tuple[str, str], ...] = (
    (
        r"^(text_encoder|lora_te\d?_)",
        "changes a text encoder; only adapters of the transformer are supported",
    ),
    (
        r"^(unet\.|lora_unet_(down|mid|up|input|middle|output)_)",
        "belongs to a U-Net, as Stable Diffusion 1, 2 and XL have; this base is a Stable Diffusion 3",
    ),
    (
        r"single_(transformer_)?blocks|double_blocks",
        "belongs to FLUX; this base is a Stable Diffusion 3",
    ),
    (
        r"lora_magnitude_vector|dora_scale",
        "is DoRA, whose weights are no plain sum; only plain LoRA is read: train without DoRA",
    ),
    (
        r"\.(hada_|lokr_|oft_|boft_|glora_|ia3_|a1\.|b1\.)",
        "is no LoRA but another of the LyCORIS methods; only plain LoRA is read",
    ),
    (r"\.diff(_b)?$", "holds whole differences of weights; only plain LoRA is read"),
    (
        r"joint_blocks",
        f"uses kohya's or ComfyUI's names, in which q, k and v are one layer; {_REMEDY}",
    ),
    (r"\.lora(_|\.)(down|up)\.weight$|\.alpha$", f"uses kohya's names; {_REMEDY}"),
)
"""What the name of a weight gives away of files that are not read, the first match telling most."""


def save_adapter(adapter: Adapter, folder: Path) -> Path:
    """Writes the weights, their configuration and their digest into ``folder``; returns the path of the
    weights.

    The bytes of the weights file depend on ``adapter`` alone: the same adapter has the same SHA-256
    everywhere. Every file is replaced in one step, so a reader sees the old adapter or the new one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    payload = adapter_bytes(adapter)
    config = json.dumps(_peft_config(adapter), indent=2, sort_keys=True) + "\n"
    digest = f"{hashlib.sha256(payload).hexdigest()}  {WEIGHTS_NAME}\n"
    (folder / DIGEST_NAME).unlink(
        missing_ok=True
    )  # a digest never stands beside weights that are not its own
    _replace(folder / CONFIG_NAME, config.encode())
    _replace(folder / WEIGHTS_NAME, payload)
    _replace(folder / DIGEST_NAME, digest.encode())
    return folder / WEIGHTS_NAME


def load_adapter(source: Path) -> Adapter:
    """Reads an adapter from a safetensors file, or from a folder that holds :data:`WEIGHTS_NAME`.

    Understands the files of :func:`save_adapter`, of diffusers and of PEFT (one rank and alpha throughout).
    Alpha comes from the file's metadata, then from ``adapter_config.json`` beside it, then equals the rank,
    as in diffusers. Raises :class:`AdapterError`, naming file and weight, for anything else; nothing is
    ever unpickled.
    """
    path = _weights_file(source)
    if path.suffix != ".safetensors":
        raise AdapterError(f"{path}: not a .safetensors file; other formats can run code and are not read")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise AdapterError(
            f"{path}: {path.stat().st_size:,} bytes is more than an adapter can have ({MAX_FILE_BYTES:,})"
        )
    _check_digest(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"{path}: not readable as safetensors: {error}") from error
    try:
        pairs = _pairs(tensors)
        rank = next(iter(pairs.values()))[0].shape[0]
        base_revision, lineage = _lineage(metadata)
        alpha = _alpha(_training_config(path, metadata), rank)
        return Adapter(rank, alpha, pairs, base_revision=base_revision, metadata=lineage)
    except AdapterError as error:
        raise AdapterError(f"{path}: {error}") from error


def adapter_bytes(adapter: Adapter) -> bytes:
    """The contents of the weights file, the same bytes for the same adapter."""
    tensors: dict[str, Tensor] = {}
    for path, (down, up) in adapter.weights.items():
        tensors[f"transformer.{path}.lora_A.weight"] = down.detach().cpu().contiguous()
        tensors[f"transformer.{path}.lora_B.weight"] = up.detach().cpu().contiguous()
    config = {f"transformer.{key}": value for key, value in _peft_config(adapter).items()}
    lineage = {"base_revision": adapter.base_revision, "metadata": dict(adapter.metadata)}
    metadata = {
        "format": "pt",
        _DIFFUSERS_KEY: json.dumps(config, sort_keys=True),
        _LINEAGE_KEY: json.dumps(lineage, sort_keys=True),
    }
    return _with_metadata(safetensors.torch.save(dict(sorted(tensors.items()))), metadata)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's contents, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _with_metadata(plain: bytes, metadata: Mapping[str, str]) -> bytes:
    """Adds ``metadata``, sorted, to the header: the library writes it in an order that differs from run to
    run."""
    length = int.from_bytes(plain[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(plain[8 : 8 + length])}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded + plain[8 + length :]


def _peft_config(adapter: Adapter) -> dict[str, Any]:
    """The fields of ``peft.LoraConfig`` that say how the weights are applied."""
    return {
        "peft_type": "LORA",
        "r": adapter.rank,
        "lora_alpha": int(adapter.alpha) if adapter.alpha == int(adapter.alpha) else adapter.alpha,
        "target_modules": sorted(adapter.weights),
        "lora_dropout": 0.0,
        "bias": "none",
        "init_lora_weights": True,
        "inference_mode": True,
    }


def _weights_file(source: Path) -> Path:
    path = source / WEIGHTS_NAME if source.is_dir() else source
    if not path.is_file():
        raise AdapterError(f"{path}: no such file; expected an adapter's {WEIGHTS_NAME} or its folder")
    return path


def _check_digest(path: Path) -> None:
    recorded = path.with_name(path.name + ".sha256")
    if not recorded.is_file():
        return
    expected = recorded.read_text(encoding="utf-8", errors="replace")[:64]
    if file_sha256(path) != expected:
        raise AdapterError(
            f"{path}: contents do not match {recorded.name}; the file was changed or cut short"
        )


def _pairs(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Module path -> (A, B), sorted by path, from keys as diffusers and PEFT write them."""
    if not tensors:
        raise AdapterError("holds no weights")
    for pattern, reason in _FOREIGN:
        foreign = next((key for key in tensors if re.search(pattern, key)), None)
        if foreign is not None:
            raise AdapterError(f"{reason} (weight {foreign})")
    prefix = next(prefix for prefix in _PREFIXES if all(key.startswith(prefix) for key in tensors))
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        module, separator, name = key.removeprefix(prefix).rpartition(".lora_")
        if not separator or name not in ("A.weight", "B.weight"):
            raise AdapterError(
                f"unexpected weight {key}; expected transformer.<module>.lora_A.weight or .lora_B.weight"
            )
        found.setdefault(module, {})[name[0]] = tensor
    for module, halves in found.items():
        for name in ("A", "B"):
            if name not in halves:
                raise AdapterError(f"{prefix}{module}.lora_{name}.weight is missing")
            if halves[name].ndim != 2:
                raise AdapterError(
                    f"{prefix}{module}.lora_{name}.weight has {halves[name].ndim} dimensions; expected 2"
                )
    return {module: (found[module]["A"], found[module]["B"]) for module in sorted(found)}


def _training_config(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """PEFT's LoraConfig as stored in the file, or else beside it; empty if neither has one."""
    if _DIFFUSERS_KEY in metadata:
        stored = _json_object(metadata[_DIFFUSERS_KEY], f"metadata {_DIFFUSERS_KEY}")
        return {key.removeprefix("transformer."): value for key, value in stored.items()}
    config = path.with_name(CONFIG_NAME)
    if not config.is_file():
        return {}
    if config.stat().st_size > MAX_CONFIG_BYTES:
        raise AdapterError(f"{CONFIG_NAME} is larger than {MAX_CONFIG_BYTES:,} bytes")
    return _json_object(config.read_text(encoding="utf-8", errors="replace"), CONFIG_NAME)


def _alpha(config: Mapping[str, Any], rank: int) -> float:
    for option in _UNSUPPORTED:
        if config.get(option):
            raise AdapterError(
                f"was made with {option}={config[option]!r}; only plain LoRA of one rank and alpha is read"
            )
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise AdapterError(f"is a {kind} adapter; only plain LoRA is read")
    stored_rank = config.get("r", rank)
    if stored_rank != rank:
        raise AdapterError(f"its configuration says rank {stored_rank!r}, its weights say {rank}")
    alpha = config.get("lora_alpha", rank)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise AdapterError(f"its configuration says lora_alpha {alpha!r}; expected a number")
    return float(alpha)


def _lineage(metadata: Mapping[str, str]) -> tuple[str | None, dict[str, str]]:
    if _LINEAGE_KEY not in metadata:
        return None, {}
    stored = _json_object(metadata[_LINEAGE_KEY], f"metadata {_LINEAGE_KEY}")
    revision, lineage = stored.get("base_revision"), stored.get("metadata", {})
    texts = isinstance(lineage, dict) and all(isinstance(value, str) for value in lineage.values())
    if not (revision is None or isinstance(revision, str)) or not texts:
        raise AdapterError(
            f"metadata {_LINEAGE_KEY} is malformed; expected a base_revision and a metadata object of texts"
        )
    return revision, lineage


def _json_object(text: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{place} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise AdapterError(f"{place} is not a JSON object")
    return value


def _replace(path: Path, payload: bytes) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(payload)
    partial.replace(path)
