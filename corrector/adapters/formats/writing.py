"""Writing adapters as files for diffusers, PEFT, and ComfyUI with kohya's scripts.

In every file alpha equals the rank (:meth:`Adapter.folded`), so programs that ignore it or do not find it apply the adapter
with the right strength.
"""

import hashlib
import json
from pathlib import Path

import torch
from torch import Tensor

from corrector.adapters.adapter import Adapter, AdapterError
from corrector.adapters.formats import names, qkv_layout
from corrector.adapters.formats.config import CONFIG_NAME, header_metadata, peft_config
from corrector.adapters.formats.container import encode
from corrector.adapters.formats.reading import PEFT_WEIGHTS_NAME, WEIGHTS_NAME, load_adapter
from corrector.adapters.formats.written import FORMATS, AdapterFormat
from corrector.files import write_atomically

DIGEST_NAME = WEIGHTS_NAME + ".sha256"


def save_adapter(adapter: Adapter, folder: Path) -> Path:
    """Writes weights, configuration and digest into ``folder``, as diffusers reads them; returns the weights' path.

    Equal adapters give equal bytes and one SHA-256. Every file is replaced in one step, so a reader sees the old adapter
    or the new one. Raises :class:`AdapterError` if ``folder`` holds an adapter in PEFT's format.
    """
    payload = adapter_bytes(adapter)
    digest = f"{hashlib.sha256(payload).hexdigest()}  {WEIGHTS_NAME}\n"
    _prepare(folder, other=PEFT_WEIGHTS_NAME)
    # First, so that a reader never compares new weights with the old digest.
    (folder / DIGEST_NAME).unlink(missing_ok=True)
    write_atomically(folder / CONFIG_NAME, _config_bytes(adapter))
    write_atomically(folder / WEIGHTS_NAME, payload)
    write_atomically(folder / DIGEST_NAME, digest)
    return folder / WEIGHTS_NAME


def export_adapter(adapter: Adapter, destination: Path, to: AdapterFormat) -> Path:
    """Writes ``adapter`` in the format ``to``; returns the path of the weights.

    "diffusers"
        a folder, for ``load_lora_weights``: what :func:`save_adapter` writes.
    "peft"
        a folder, for ``PeftModel.from_pretrained`` and ``load_adapter`` on the transformer.
    "comfyui"
        one ``.safetensors`` file, for ComfyUI's ``models/loras`` and for kohya's sd-scripts, in kohya's names. kohya's
        scripts do not load diffusers' own file.

    All are replaced in one step, and :func:`load_adapter` reads the folded adapter back from each, bit for bit. Raises
    :class:`AdapterError` for an unknown format, a destination of the wrong kind, and, in "comfyui", a layer that has no
    name there.
    """
    if to not in FORMATS:
        raise AdapterError(f"{to!r} is no format of adapters; expected one of {', '.join(FORMATS)}")
    if to != "comfyui" and destination.suffix == ".safetensors":
        raise AdapterError(f"{destination}: the format {to} is a folder; leave out .safetensors")
    if to == "diffusers":
        return save_adapter(adapter, destination)
    payload = adapter_bytes(adapter, to)
    if to == "peft":
        _prepare(destination, other=WEIGHTS_NAME)
        write_atomically(destination / CONFIG_NAME, _config_bytes(adapter))
        write_atomically(destination / PEFT_WEIGHTS_NAME, payload)
        return destination / PEFT_WEIGHTS_NAME
    if destination.suffix != ".safetensors" or destination.is_dir():
        raise AdapterError(
            f"{destination}: the format comfyui is one file; expected a name that ends in .safetensors"
        )
    destination.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(destination, payload)
    return destination


def convert_adapter(source: Path, destination: Path, to: AdapterFormat) -> Path:
    """Reads an adapter of any format (:func:`load_adapter`) and writes it in another (:func:`export_adapter`)."""
    return export_adapter(load_adapter(source), destination, to)


def adapter_bytes(adapter: Adapter, to: AdapterFormat = "diffusers") -> bytes:
    """The contents of the weights file in a format, the same bytes for the same adapter."""
    adapter = adapter.folded()
    if to == "comfyui":
        return encode(_kohya_tensors(adapter), header_metadata(adapter))
    prefix = "transformer." if to == "diffusers" else "base_model.model."
    tensors: dict[str, Tensor] = {}
    for path, (down, up) in adapter.weights.items():
        tensors[f"{prefix}{path}.lora_A.weight"] = down
        tensors[f"{prefix}{path}.lora_B.weight"] = up
    return encode(tensors, header_metadata(adapter))


def _kohya_tensors(adapter: Adapter) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for layer, (down, up, alpha) in qkv_layout.fuse(adapter.weights, adapter.alpha).items():
        name = names.kohya_layer(layer)
        tensors |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        tensors[f"{name}.alpha"] = torch.tensor(alpha, dtype=torch.float32)
    return tensors


def _config_bytes(adapter: Adapter) -> bytes:
    return (json.dumps(peft_config(adapter.folded()), indent=2, sort_keys=True) + "\n").encode()


def _prepare(folder: Path, *, other: str) -> None:
    """Makes ``folder``; refuses one that holds an adapter in the format ``other``, whose configuration would be lost."""
    if (folder / other).is_file():
        raise AdapterError(f"{folder}: holds an adapter in another format, {other}; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
