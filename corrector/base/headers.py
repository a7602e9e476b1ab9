"""Headers of safetensors files: names, shapes and dtypes of their tensors. Pickles are refused and never opened."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from safetensors import SafetensorError, safe_open

from corrector.errors import UserError

PICKLES = (".ckpt", ".bin", ".pt", ".pth")

_STEMS = ("diffusion_pytorch_model", "model")
_OF_A_VARIANT = re.compile(rf"({'|'.join(_STEMS)})\.(?P<variant>[\w-]+?)(-\d+-of-\d+)?\.safetensors")


@dataclass(frozen=True)
class TensorHeader:
    """Shape, dtype and file of a tensor."""

    shape: tuple[int, ...]
    dtype: str
    """In safetensors' names: ``BF16``, ``F32``, ``F8_E4M3``."""
    file: Path


Headers: TypeAlias = Mapping[str, TensorHeader]


def read_headers(files: Iterable[Path]) -> dict[str, TensorHeader]:
    """Every tensor of ``files`` by name; raises :class:`UserError` for a file that is not complete safetensors."""
    headers: dict[str, TensorHeader] = {}
    for path in files:
        try:
            with safe_open(path, framework="np") as file:  # needs no PyTorch, and no tensor is made
                for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
                    tensor = file.get_slice(name)
                    headers[name] = TensorHeader(tuple(tensor.get_shape()), tensor.get_dtype(), path)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path}: not a whole safetensors file ({error}); it may be cut off: copy or download it again"
            ) from error
    return headers


def weights_variant(folder: Path) -> str | None:
    """The variant of a component's weights: "fp16" where ``save_pretrained`` was called with it, None where without.

    Weights without a variant come first. Raises :class:`UserError` where there are several variants only.
    """
    if any((folder / f"{stem}.safetensors{end}").is_file() for stem in _STEMS for end in ("", ".index.json")):
        return None
    found = {m["variant"] for path in folder.glob("*") if (m := _OF_A_VARIANT.fullmatch(path.name))}
    if len(found) > 1:
        raise UserError(
            f"{folder}: has weights of several variants, {' and '.join(sorted(found))}, and none without; "
            "keep those of one"
        )
    return next(iter(found), None)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a component: one, or the shards in its index; those of its variant, where it has one only.

    Raises :class:`UserError` where a file is missing, or there are pickles only.
    """
    variant = weights_variant(folder)
    named = f".{variant}" if variant else ""
    for stem in _STEMS:
        index, whole = (
            folder / f"{stem}.safetensors.index{named}.json",
            folder / f"{stem}{named}.safetensors",
        )
        if index.is_file():
            return [_present(folder / name) for name in _shards(index)]
        if whole.is_file():
            return [whole]
    pickles = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES)
    if pickles:
        raise UserError(
            f"{folder}: has {pickles[0]} but no safetensors; a pickle can run any code and is never loaded: "
            "save the pipeline again with safe_serialization=True"
        )
    raise UserError(
        f"{folder}: has no weights; expected diffusion_pytorch_model.safetensors or model.safetensors"
    )


def _shards(index: Path) -> list[str]:
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{index}: not an index of safetensors shards ({error!r}); restore it") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or Path(name).suffix != ".safetensors":
            raise UserError(f"{index}: names {name!r}; expected safetensors files in its own folder")
    return sorted(names)


def _present(shard: Path) -> Path:
    if not shard.is_file():
        raise UserError(f"{shard}: missing, although the index beside it names it; copy or download it again")
    return shard
