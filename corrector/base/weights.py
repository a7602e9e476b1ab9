"""Checks of weights: their headers before they are read, and their values afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import nn

from corrector.base.architecture import ORIGINAL_PREFIX, VAE_PREFIXES
from corrector.base.headers import Headers, TensorHeader, read_headers, weight_files
from corrector.base.spec import BaseSpec, json_object
from corrector.errors import UserError

if TYPE_CHECKING:
    from diffusers import SD3Transformer2DModel

_SHOWN = 3


def transformer_files(spec: BaseSpec) -> list[Path]:
    """The files on this machine that hold the transformer's weights; raises :class:`UserError`."""
    if spec.single_file is not None:
        return [spec.single_file.source.path]
    return weight_files(spec.component("transformer"))


def transformer_skeleton(spec: BaseSpec) -> SD3Transformer2DModel:
    """The transformer on the device ``meta``, from the configuration alone."""
    from diffusers import SD3Transformer2DModel

    path = spec.folder / "transformer" / "config.json"
    try:
        with torch.device("meta"):
            return SD3Transformer2DModel.from_config(json_object(path))
    except (TypeError, ValueError, KeyError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"{path}: makes no Stable Diffusion 3 transformer ({error})") from error


def check_transformer_files(spec: BaseSpec) -> list[Path]:
    """Compares the headers of the transformer's files with its configuration; returns the files.

    Raises :class:`UserError` for files that are missing or cut off, and for weights that are missing or have another shape.
    """
    files = transformer_files(spec)
    headers = read_headers(files)
    if spec.single_file is not None and spec.single_file.layout == "original":
        headers = _converted_transformer(spec, files[0], headers)
    _check_shapes(spec, files[0].parent, headers, transformer_skeleton(spec))
    return files


def check_transformer(spec: BaseSpec) -> None:
    """Checks the transformer's files, and every weight for NaN and infinity, one at a time on the CPU.

    Raises :class:`UserError`.
    """
    for path in check_transformer_files(spec):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and tensor.numel() and not _finite(tensor):
                    raise UserError(_not_finite(spec, name, path))


def check_vae_file(spec: BaseSpec, path: Path) -> None:
    """Checks the headers of the VAE in a single file, as :func:`check_transformer_files` does."""
    from diffusers import AutoencoderKL
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    config = json_object(spec.folder / "vae" / "config.json")
    headers = {name: each for name, each in read_headers([path]).items() if name.startswith(VAE_PREFIXES)}
    try:
        with torch.device("meta"):
            skeleton = AutoencoderKL.from_config(config)
        converted = convert_ldm_vae_checkpoint(_placeholders(headers), config)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise _incomplete(spec, path, error) from error
    _check_shapes(spec, path, _headers_of(converted, path), skeleton)


def check_finite(spec: BaseSpec, model: nn.Module, files: Iterable[Path]) -> None:
    """Raises :class:`UserError` that names the first weight of ``model`` with a NaN or an infinity, and its file."""
    named = [
        (name, tensor)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if tensor.is_floating_point() and tensor.numel()
    ]
    finite = torch.stack([_finite(tensor.detach()) for _, tensor in named])
    broken = (~finite).nonzero().flatten().tolist()
    if broken:
        name = named[broken[0]][0]
        headers = read_headers(files)
        place = headers[name].file if name in headers else next(iter(headers.values())).file
        raise UserError(_not_finite(spec, name, place))


def _finite(tensor: torch.Tensor) -> torch.Tensor:
    """Whether all of ``tensor`` is finite, by its minimum and maximum; a mask would need more memory."""
    return torch.stack(torch.aminmax(tensor)).float().isfinite().all()


def _not_finite(spec: BaseSpec, name: str, place: Path) -> str:
    return (
        f'base "{spec.reference}": {name} in {place} holds a NaN or an infinity; '
        "copy or download the file again, and do not use a checkpoint whose training diverged"
    )


def _converted_transformer(spec: BaseSpec, path: Path, headers: Headers) -> dict[str, TensorHeader]:
    """Headers after diffusers' conversion, which runs on tensors of the device ``meta``."""
    from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

    prefixed = any(name.startswith(ORIGINAL_PREFIX) for name in headers)
    own = {
        name: header for name, header in headers.items() if name.startswith(ORIGINAL_PREFIX) or not prefixed
    }
    remaining = _placeholders(own)
    try:
        converted = convert_sd3_transformer_checkpoint_to_diffusers(remaining)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise _incomplete(spec, path, error) from error
    unknown = sorted(name for name in remaining if name.startswith("joint_blocks.") or name == "scaled_fp8")
    if unknown:
        raise UserError(
            f'base "{spec.reference}": {path} has {unknown[0]}, which no Stable Diffusion 3 has; a checkpoint '
            "with scaled fp8 weights is not supported: use the one in bf16 or fp16"
        )
    return _headers_of(converted, path)


def _placeholders(headers: Headers) -> dict[str, torch.Tensor]:
    return {name: torch.empty(header.shape, device="meta") for name, header in headers.items()}


def _headers_of(tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, TensorHeader]:
    return {name: TensorHeader(tuple(each.shape), "F32", path) for name, each in tensors.items()}


def _incomplete(spec: BaseSpec, path: Path, error: Exception) -> UserError:
    return UserError(
        f'base "{spec.reference}": {path} is not whole: diffusers cannot convert it ({error!r}); '
        "copy or download it again"
    )


def _check_shapes(spec: BaseSpec, place: Path, headers: Headers, skeleton: Any) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    kind = type(skeleton).__name__
    missing = sorted(expected.keys() - headers.keys())
    if missing:
        raise UserError(
            f'base "{spec.reference}": {place} lacks {len(missing)} weights of a {kind}, '
            f"{', '.join(missing[:_SHOWN])} the first; download or save it again"
        )
    for name, shape in expected.items():
        if headers[name].shape != shape:
            raise UserError(
                f'base "{spec.reference}": {headers[name].file}: {name} has the shape {list(headers[name].shape)}, '
                f"but the configuration of this {kind} asks for {list(shape)}; file and configuration must belong together"
            )
