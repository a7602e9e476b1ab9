"""The safetensors container: bounded reading, and writing with the same bytes every time."""

import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from corrector.adapters.adapter import AdapterError

MAX_FILE_BYTES = 2 * 1024**3
"""Larger files are refused unread and not written; rank 128 on the attention of SD3.5-large is 0.7 GiB in fp32, and
1.2 GiB with q, k and v fused."""
MAX_HEADER_BYTES = 8 * 1024**2
"""Larger headers are refused unread and not written; the names of every Linear of SD3.5-large take under 0.3 MiB."""

_SHOWN = 160
_DTYPES = frozenset({"F64", "F32", "F16", "BF16", "I64", "I32"})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, by key, and the metadata of its header.

    Raises :class:`AdapterError` if the file is too large or is not a complete safetensors file.
    """
    if path.suffix != ".safetensors":
        raise AdapterError("not a .safetensors file; other formats can run code and are not read")
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise AdapterError(f"{size:,} bytes is more than an adapter can have ({MAX_FILE_BYTES:,})")
    try:
        with path.open("rb") as raw:
            header = int.from_bytes(raw.read(8), "little")
        if MAX_HEADER_BYTES < header <= size:
            raise AdapterError(
                f"its header of {header:,} bytes is more than an adapter can have ({MAX_HEADER_BYTES:,})"
            )
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {}
            for key in file.keys():  # noqa: SIM118 - not a mapping
                if (dtype := file.get_slice(key).get_dtype()) not in _DTYPES:
                    raise AdapterError(
                        f"weight {shown(key)} is stored as {dtype}; expected F32, F16, BF16 or F64: save it in one"
                    )
                tensors[key] = file.get_tensor(key)
            return tensors, dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise AdapterError(f"not readable as safetensors: {error}") from error


def encode(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The contents of a safetensors file; the same bytes for the same tensors and metadata in any order.

    Raises :class:`AdapterError` if :func:`read_tensors` would refuse them.
    """
    # Copies: the library refuses tensors that share memory, such as q, k and v that were read from a fused layer.
    copies = {
        key: tensors[key].detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for key in sorted(tensors)
    }
    plain = safetensors.torch.save(copies)
    # The library writes metadata in an order that differs from run to run, so they are added here, sorted.
    length = int.from_bytes(plain[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(plain[8 : 8 + length])}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    if len(encoded) > MAX_HEADER_BYTES:
        raise AdapterError(
            f"the header would take {len(encoded):,} bytes; an adapter can have {MAX_HEADER_BYTES:,}: shorten its metadata"
        )
    if (size := len(encoded) + len(plain) - length) > MAX_FILE_BYTES:
        raise AdapterError(
            f"the file would take {size:,} bytes; an adapter can have {MAX_FILE_BYTES:,}: lower its rank"
        )
    return len(encoded).to_bytes(8, "little") + encoded + plain[8 + length :]


def shown(value: object) -> str:
    """A value from a file for a message: short, on one line, without control characters."""
    text = value if isinstance(value, str) else repr(value)
    return ascii(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")[1:-1]
