"""Reading adapter files of every format, which is recognised by the keys."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import isclose, isfinite
from pathlib import Path

import torch
from torch import Tensor

from corrector.adapters.adapter import Adapter, AdapterError
from corrector.adapters.formats import names, qkv_layout
from corrector.adapters.formats.config import StatedConfig, lineage, stored_config
from corrector.adapters.formats.container import MAX_FILE_BYTES, read_tensors
from corrector.adapters.formats.qkv_layout import LoraFactors
from corrector.files import file_sha256

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
PEFT_WEIGHTS_NAME = "adapter_model.safetensors"

ALPHA_TOLERANCE = 1e-6
"""Relative tolerance between an ``.alpha`` tensor, which is float32, and the alpha of the configuration."""


def load_adapter(source: Path) -> Adapter:
    """Reads an adapter from a safetensors file, or from a folder that diffusers or PEFT wrote.

    Reads files of diffusers, PEFT, ComfyUI, kohya, OneTrainer and SimpleTuner, see
    :mod:`corrector.adapters.formats.names`. Files that :func:`save_adapter` and :func:`export_adapter` wrote, and all with
    one rank and alpha and diffusers' layers, are read bit for bit. For the others:

    - Alpha is a layer's ``.alpha`` tensor, else that of PEFT's configuration in the file or beside it, else the rank.
    - A fused qkv layer becomes three (see :mod:`corrector.adapters.formats.qkv_layout`), without a number changed.
    - Where ranks differ, all are zero-padded to the highest, which is exact.
    - Where scales ``alpha / rank`` differ, B is multiplied by the ratio to the most common scale among the layers of the
      highest rank: exact for powers of two, else rounded to float32. B is then float32 at least.

    Raises :class:`AdapterError`, naming file and weight, for anything else; nothing is ever unpickled.
    """
    path = _weights_file(source)
    try:
        _check_digest(path)
        tensors, metadata = read_tensors(path)
        prefix, found = _collect(tensors)
        config = stored_config(path, metadata, beside=prefix in names.CONFIGURED_PREFIXES)
        stated = StatedConfig.read(config)
        rank, alpha, weights = _uniform(_resolve(_in_diffusers_layout(found, stated), stated))
        base_revision, texts = lineage(metadata)
        return Adapter(rank, alpha, weights, base_revision=base_revision, metadata=texts)
    except AdapterError as error:
        raise AdapterError(f"{path}: {error}") from error


@dataclass(frozen=True)
class _Resolved:
    """LoRA of one Linear with its alpha; ``scale`` is ``alpha / rank``, exactly."""

    down: Tensor
    up: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> Fraction:
        return Fraction(self.alpha) / self.rank


def _weights_file(source: Path) -> Path:
    if not source.is_dir():
        if not source.is_file():
            raise AdapterError(f"{source}: no such file; expected an adapter's weights or their folder")
        return source
    present = [source / name for name in (WEIGHTS_NAME, PEFT_WEIGHTS_NAME) if (source / name).is_file()]
    if not present:
        raise AdapterError(
            f"{source}: no such file in it as {WEIGHTS_NAME} or {PEFT_WEIGHTS_NAME}; name the weights' own file"
        )
    if len(present) > 1:
        raise AdapterError(
            f"{source}: holds both {WEIGHTS_NAME} and {PEFT_WEIGHTS_NAME}; name the one that is meant"
        )
    return present[0]


def _check_digest(path: Path) -> None:
    recorded = path.with_name(path.name + ".sha256")
    if not recorded.is_file() or path.stat().st_size > MAX_FILE_BYTES:  # read_tensors reports the size
        return
    with recorded.open("rb") as file:
        expected = file.read(64).decode("ascii", errors="replace")
    if file_sha256(path) != expected:
        raise AdapterError(f"contents do not match {recorded.name}; the file was changed or cut short")


def _collect(tensors: Mapping[str, Tensor]) -> tuple[str, dict[names.Name, LoraFactors]]:
    """The prefix of the file's keys, and the LoRA of every layer by the name of its A half."""
    if not tensors:
        raise AdapterError("holds no weights")
    parsed = [names.parse(key) for key in tensors]
    first = parsed[0]
    layers: dict[str, dict[names.Factor, names.Name]] = {}
    for name in parsed:
        if name.prefix != first.prefix:
            raise AdapterError(
                f"mixes the names of two formats, {first.key} and {name.key}; save every layer in one format"
            )
        other = layers.setdefault(name.layer, {}).setdefault(name.factor, name)
        if other is not name:
            raise AdapterError(f"names the same weight twice, {other.key} and {name.key}; remove one")
    found = {}
    for halves in layers.values():
        for name in halves.values():
            if name.partner is not None and name.partner not in tensors:
                raise AdapterError(
                    f"{name.partner} is missing; the file was cut short or {name.key} is stray"
                )
        if "down" not in halves:
            raise AdapterError(
                f"{halves['alpha'].key} has no LoRA beside it; remove it or save the layer whole"
            )
        down, up = halves["down"], halves["up"]
        _check_halves(down.key, tensors[down.key], up.key, tensors[up.key])
        alpha = halves.get("alpha")
        value = None if alpha is None else _stored_alpha(alpha.key, tensors[alpha.key])
        found[down] = LoraFactors(tensors[down.key], tensors[up.key], value)
    return first.prefix, found


def _check_halves(down_key: str, down: Tensor, up_key: str, up: Tensor) -> None:
    for key, tensor in ((down_key, down), (up_key, up)):
        if tensor.ndim != 2:
            raise AdapterError(f"{key} has {tensor.ndim} dimensions; expected the 2 of a Linear's LoRA")
        if not tensor.is_floating_point():
            raise AdapterError(f"{key} holds {tensor.dtype}; expected floating-point numbers")
        if tensor.numel() == 0:
            raise AdapterError(
                f"{key} has shape {list(tensor.shape)} and so holds nothing; the file is damaged"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise AdapterError(
                f"{key} holds NaN or infinite values; the adapter is damaged or diverged in training"
            )
    if down.shape[0] != up.shape[1]:
        raise AdapterError(
            f"{up_key} has shape {list(up.shape)}; expected [out, {down.shape[0]}] at rank {down.shape[0]} of {down_key}"
        )


def _stored_alpha(key: str, tensor: Tensor) -> float:
    if tensor.numel() != 1:
        raise AdapterError(f"{key} has shape {list(tensor.shape)}; expected a single number")
    alpha = float(tensor)
    if not (isfinite(alpha) and alpha > 0):
        raise AdapterError(
            f"{key} is {alpha}; expected a positive number: tools differ in what another one means"
        )
    return alpha


def _in_diffusers_layout(
    found: Mapping[names.Name, LoraFactors], stated: StatedConfig
) -> dict[str, LoraFactors]:
    layers: dict[str, LoraFactors] = {}
    for name, factors in found.items():
        if name.layout == "diffusers":
            layers[name.layer] = factors
            continue
        parts = qkv_layout.split(name.layer, factors, stated.rank_of(names.diffusers_layers(name.layer)[0]))
        # q, k or v without LoRA is fused as zeros; only the configuration distinguishes it from one still untrained.
        layers |= {path: part for path, part in parts.items() if part.up.any() or not stated.leaves_out(path)}
    if not layers:
        raise AdapterError(
            "its weights are all zero, and its configuration names none of their layers; one of the two is damaged"
        )
    return {path: layers[path] for path in sorted(layers)}


def _resolve(layers: Mapping[str, LoraFactors], stated: StatedConfig) -> dict[str, _Resolved]:
    """Every layer with its alpha; raises :class:`AdapterError` where configuration and weights contradict each other."""
    resolved = {}
    for path, (down, up, stored) in layers.items():
        rank, stated_rank, alpha = down.shape[0], stated.rank_of(path), stated.alpha_of(path)
        if stated_rank not in (None, rank):
            raise AdapterError(
                f"its configuration says rank {stated_rank}, its weights say {rank} (layer {path})"
            )
        if alpha is not None and stored is not None and not isclose(alpha, stored, rel_tol=ALPHA_TOLERANCE):
            raise AdapterError(
                f"its configuration says alpha {alpha}, its weights say {stored} (layer {path}); remove the wrong one"
            )
        settled = next((value for value in (alpha, stored) if value is not None), float(rank))
        if settled <= 0:
            raise AdapterError(f"adapter alpha is {settled}; it must be a positive number (layer {path})")
        resolved[path] = _Resolved(down, up, settled)
    return resolved


def _uniform(layers: Mapping[str, _Resolved]) -> tuple[int, float, dict[str, tuple[Tensor, Tensor]]]:
    """One rank and alpha for all layers: see :func:`load_adapter`."""
    rank = max(layer.rank for layer in layers.values())
    padded = sum(
        rank * (layer.down.shape[1] + layer.up.shape[0]) * layer.up.element_size()
        for layer in layers.values()
    )
    if padded > MAX_FILE_BYTES:
        raise AdapterError(
            f"all layers at its highest rank, {rank}, would take {padded:,} bytes; an adapter can have {MAX_FILE_BYTES:,}"
        )
    alphas = Counter(layer.alpha for layer in layers.values() if layer.rank == rank)
    alpha = alphas.most_common(1)[0][0]
    weights = {}
    for path, layer in layers.items():
        ratio = layer.scale / (Fraction(alpha) / rank)
        weights[path] = (_pad(layer.down, rank, 0), _pad(_scaled(layer.up, ratio), rank, 1))
    return rank, alpha, weights


def _scaled(up: Tensor, ratio: Fraction) -> Tensor:
    return up if ratio == 1 else up.to(torch.promote_types(up.dtype, torch.float32)) * float(ratio)


def _pad(tensor: Tensor, rank: int, dimension: int) -> Tensor:
    missing = list(tensor.shape)
    missing[dimension] = rank - tensor.shape[dimension]
    return tensor if missing[dimension] == 0 else torch.cat((tensor, tensor.new_zeros(missing)), dimension)
