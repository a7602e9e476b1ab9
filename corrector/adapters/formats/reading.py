"""Reading adapter files of every format, which is recognised by the keys."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isclose, isfinite
from pathlib import Path

import torch
from torch import Tensor

from corrector.adapters.adapter import Adapter, AdapterError, scaled
from corrector.adapters.formats import names, qkv_layout
from corrector.adapters.formats.config import StatedConfig, lineage, other_alpha, stored_config, without_alpha
from corrector.adapters.formats.container import MAX_FILE_BYTES, read_tensors, shown
from corrector.adapters.formats.foreign import refuse_foreign, text_encoder_keys
from corrector.adapters.formats.qkv_layout import LoraFactors
from corrector.files import file_sha256

WEIGHTS_NAME = "pytorch_lora_weights.safetensors"
PEFT_WEIGHTS_NAME = "adapter_model.safetensors"

ALPHA_TOLERANCE = 1e-6
"""Relative tolerance between an ``.alpha`` tensor, which is float32, and the alpha of the configuration."""


@dataclass(frozen=True)
class LoraFile:
    """A file that was read: the adapter, and what the file says of itself.

    Attributes:
        path: The file itself, where its folder was named.
        dialect: Whose names it uses.
        alpha: Alpha as it was read, with the rank, and where it stood.
        left_out: Number of weights of text encoders that were not read.
    """

    path: Path
    adapter: Adapter
    dialect: str
    alpha: str
    left_out: int


def load_adapter(source: Path) -> Adapter:
    """Reads an adapter from a safetensors file, or from a folder that diffusers or PEFT wrote: see :func:`read_lora`."""
    return read_lora(source).adapter


def read_lora(source: Path, *, alpha: float | None = None, without_text_encoders: bool = False) -> LoraFile:
    """Reads a safetensors file, or a folder that diffusers or PEFT wrote.

    Reads files of diffusers, PEFT, ComfyUI, kohya, OneTrainer, SimpleTuner and ai-toolkit, see
    :mod:`corrector.adapters.formats.names`. Files that :func:`save_adapter` and :func:`export_adapter` wrote, and all with
    one rank and alpha and diffusers' layers, are read bit for bit. For the others:

    - Alpha is a layer's ``.alpha`` tensor, else that of PEFT's configuration or of a field named alpha in the file's
      metadata, else that of the configuration beside it, else the rank. Where two of them differ, the file is refused.
    - A fused qkv layer becomes three (see :mod:`corrector.adapters.formats.qkv_layout`), without a number changed.
    - Where ranks differ, all are zero-padded to the highest, which is exact.
    - Where scales ``alpha / rank`` differ, B is multiplied by the ratio to the most common scale among the layers of the
      highest rank: exact for powers of two, else rounded to float32. B is then float32 at least.

    Raises :class:`AdapterError`, naming file and weight, for anything else; nothing is ever unpickled.

    Args:
        alpha: Of every layer of the file, whatever the file says.
        without_text_encoders: Read the transformer's part of a file that also changes text encoders, which is refused
            otherwise: it is not the whole of what was trained.
    """
    if alpha is not None and not (isfinite(alpha) and alpha > 0):
        raise AdapterError(f"alpha is {alpha}; it must be a positive number")
    path = _weights_file(source)
    try:
        _check_digest(path)
        tensors, metadata = read_tensors(path)
        refuse_foreign(tensors)
        left_out = text_encoder_keys(tensors)
        if left_out and not without_text_encoders:
            raise AdapterError(
                f"changes a text encoder, too (weight {shown(left_out[0])}, {len(left_out)} in all); only the "
                "transformer's part can be read: import it with --without-text-encoders and judge what is left, or "
                "train without the text encoders"
            )
        first, found = _collect({key: tensors[key] for key in tensors.keys() - set(left_out)})
        if alpha is not None:
            metadata = without_alpha(metadata)
        place, config = stored_config(path, metadata, beside=first.may_have_config_beside)
        stated = StatedConfig.read(config, place)
        if alpha is not None:
            found = {name: factors._replace(alpha=alpha) for name, factors in found.items()}
            stated = replace(stated, alpha=None, alphas={})
        elif stated.alpha is None and all(factors.alpha is None for factors in found.values()):
            _check_other_alpha(metadata, found)
        layers = _resolve(_in_diffusers_layout(found, stated), stated)
        rank, common, weights = _uniform(layers)
        base_revision, texts = lineage(metadata)
        adapter = Adapter(rank, common, weights, base_revision=base_revision, metadata=texts)
        origin = "as given" if alpha is not None else _origin(found, stated)
        return LoraFile(path, adapter, first.dialect, f"{_alphas(layers)}, {origin}", len(left_out))
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


def _collect(tensors: Mapping[str, Tensor]) -> tuple[names.Name, dict[names.Name, LoraFactors]]:
    """The name of a weight that tells prefix and layout, and the LoRA of every layer by the name of its A half."""
    if not tensors:
        raise AdapterError("holds no weights of a transformer")
    parsed = [names.parse(key) for key in sorted(tensors)]
    first = next((name for name in parsed if not name.is_common), parsed[0])
    layers: dict[str, dict[names.Factor, names.Name]] = {}
    adapters = sorted({str(name.adapter) for name in parsed if name.factor != "alpha"})
    if len(adapters) > 1:
        raise AdapterError(f"holds several adapters, {shown(', '.join(adapters))}; save one of them alone")
    for name in parsed:
        if name.prefix != first.prefix or (name.layout != first.layout and not name.is_common):
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
    return first, found


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
        if twice := parts.keys() & layers.keys():
            raise AdapterError(f"holds {min(twice)} twice, alone and fused with others; remove one")
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
                f"its {stated.place} says rank {stated_rank}, its weights say {rank} (layer {path})"
            )
        if alpha is not None and stored is not None and not isclose(alpha, stored, rel_tol=ALPHA_TOLERANCE):
            raise AdapterError(
                f"its {stated.place} says alpha {alpha}, its weights say {stored} (layer {path}); remove the wrong one, "
                "or import it with --alpha NUMBER"
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
        weights[path] = (_pad(layer.down, rank, 0), _pad(scaled(layer.up, float(ratio)), rank, 1))
    return rank, alpha, weights


def _check_other_alpha(metadata: Mapping[str, str], found: Mapping[names.Name, LoraFactors]) -> None:
    """Raises :class:`AdapterError` if the metadata have an alpha of unknown meaning that is not the layers' rank."""
    other, ranks = other_alpha(metadata), {factors.down.shape[0] for factors in found.values()}
    if other is not None and ranks != {other[1]}:
        raise AdapterError(
            f"its metadata say {other[0]} {other[1]:g}, its layers have rank {_span(ranks)} and no alpha of their own: "
            "another program has removed it, and may have put the scale into the weights; import it with "
            f"--alpha {other[1]:g}, or with the rank as --alpha if the scale is in the weights"
        )


def _origin(found: Mapping[names.Name, LoraFactors], stated: StatedConfig) -> str:
    if any(factors.alpha is not None for factors in found.values()):
        return "from alpha tensors"
    return "not stated: the rank" if stated.alpha is None else f"from {stated.place}"


def _alphas(layers: Mapping[str, _Resolved]) -> str:
    alphas, ranks = {layer.alpha for layer in layers.values()}, {layer.rank for layer in layers.values()}
    return f"{_span(alphas)} at rank {_span(ranks)}"


def _span(values: Collection[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _pad(tensor: Tensor, rank: int, dimension: int) -> Tensor:
    missing = list(tensor.shape)
    missing[dimension] = rank - tensor.shape[dimension]
    return tensor if missing[dimension] == 0 else torch.cat((tensor, tensor.new_zeros(missing)), dimension)
