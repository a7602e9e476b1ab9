"""Checkpoints of a fine-tune: one safetensors file and one JSON file, written whole or not at all.

The JSON file names the safetensors file and its digest, and replaces its predecessor by one rename. A process that is
killed before that rename leaves the last checkpoint whole.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from torch import Tensor

from corrector.dreambooth.engine import Engine
from corrector.errors import UserError
from corrector.files import write_atomically

STATE_FILE = "engine.json"

_VERSION = 1
_TENSOR = "$tensor"


def resume_state(engine: Engine, state: Mapping[str, Any], folder: Path) -> str:
    """Resumes the fine-tune that :func:`read_state` read from ``folder`` in a free slot; returns its name.

    Raises :class:`UserError` if the state is damaged or belongs to another base.
    """
    try:
        return engine.resume(state)
    except (KeyError, TypeError, IndexError, ValidationError) as error:
        raise _damaged(folder, f"{STATE_FILE} lacks or misspells {error}") from error


def exists(folder: Path) -> bool:
    """Whether a checkpoint was completed in ``folder``."""
    return (folder / STATE_FILE).is_file()


def write_state(state: Mapping[str, Any], folder: Path) -> Path:
    """Writes plain values and tensors, such as an ``Engine.state_of``, in place of the previous ones in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    tree = _split(state, "", tensors)
    payload = safetensors.torch.save(tensors)
    digest = hashlib.sha256(payload).hexdigest()
    weights = f"engine-{digest[:16]}.safetensors"
    write_atomically(folder / weights, payload, durable=True)
    index = {"version": _VERSION, "tensors": weights, "sha256": digest, "state": tree}
    write_atomically(folder / STATE_FILE, json.dumps(index, allow_nan=False), durable=True)
    for stale in [*folder.glob("engine-*.safetensors"), *folder.glob(".engine*")]:
        if stale.name != weights:
            stale.unlink(missing_ok=True)
    return folder


def read_state(folder: Path) -> dict[str, Any]:
    """The tree that :func:`write_state` wrote; raises :class:`UserError` where it is missing or damaged."""
    if not exists(folder):
        raise UserError(f"{folder}: no checkpoint here ({STATE_FILE} is missing)")
    try:
        index = json.loads((folder / STATE_FILE).read_bytes())
        version, name, digest, tree = (index[key] for key in ("version", "tensors", "sha256", "state"))
        if version != _VERSION:
            raise UserError(
                f"{folder}: checkpoint format {version} is not {_VERSION}; resume with the version that wrote it"
            )
        payload = (folder / Path(name).name).read_bytes()
        if hashlib.sha256(payload).hexdigest() != digest:
            raise _damaged(folder, f"{name} is not what was written")
        state: dict[str, Any] = _join(tree, safetensors.torch.load(payload))
    except FileNotFoundError as error:
        raise _damaged(folder, f"{Path(error.filename).name} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise _damaged(folder, f"{STATE_FILE} cannot be read ({error})") from error
    return state


def _damaged(folder: Path, what: str) -> UserError:
    return UserError(
        f"{folder}: the checkpoint is damaged: {what}; delete the folder to start these fine-tunes again"
    )


def _split(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """``value`` with each tensor replaced by its path, under which it is put into ``tensors``."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {_TENSOR: path}
    if isinstance(value, Mapping):
        return {key: _split(item, f"{path}/{key}" if path else key, tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_split(item, f"{path}/{number}", tensors) for number, item in enumerate(value)]
    return value


def _join(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(tree, dict):
        if _TENSOR in tree:
            return tensors[tree[_TENSOR]]
        return {key: _join(item, tensors) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_join(item, tensors) for item in tree]
    return tree
