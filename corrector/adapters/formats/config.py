"""PEFT's ``LoraConfig`` as JSON: rank and alpha as a file states them, and the configuration that is written.

PEFT is the reference in the tests and is not called here. ``LoraConfig.to_dict()`` has about 40 keys that change with its
version; a weights file holds them in its header, so equal adapters would get different bytes and another SHA-256. Its
errors name neither file nor key. ``import peft`` takes 3.4 s of CPU in a process with torch and without diffusers, such as
the registry's commands (``python -X importtime -c "import torch, peft"``).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from corrector.adapters.adapter import Adapter, AdapterError
from corrector.adapters.formats.container import shown
from corrector.adapters.formats.names import without_wrappers
from corrector.values import number

CONFIG_NAME = "adapter_config.json"
MAX_CONFIG_BYTES = 4 * 1024**2

_DIFFUSERS_KEY = "lora_adapter_metadata"
_CONFIG_KEYS = (_DIFFUSERS_KEY, "adapter_config", "peft_config", "lora_config")
"""Metadata that hold a whole configuration as JSON."""
_LINEAGE_KEY = "lineage"
_ALPHAS = ("lora_alpha", "network_alpha", "alpha")
_RANKS = ("r", "rank", "lora_rank", "network_dim")
_ANY_ALPHA = re.compile(r"(?:.*[._])?alpha")
_UNSUPPORTED = (
    "use_dora",
    "use_rslora",
    "use_qalora",
    "lora_bias",
    "layer_replication",
    "modules_to_save",
)
_CHANGES_THE_BASE = ("pissa", "olora", "corda", "loftq")
_PLAIN_PATTERN = re.compile(r"\^?(?:\w|\\?\.)+\$?", re.ASCII)


@dataclass(frozen=True)
class StatedConfig:
    """What a configuration says; fields that it does not have are None or empty."""

    place: str = ""
    """Where it stands, for messages."""
    rank: int | None = None
    alpha: float | None = None
    ranks: Mapping[str, int] = field(default_factory=dict)
    """Ends of layers' paths, or with ``^`` whole paths -> their own rank; the first match counts."""
    alphas: Mapping[str, float] = field(default_factory=dict)
    targets: frozenset[str] = frozenset()
    """Layers, or ends of their paths, that the adapter changes."""

    @classmethod
    def read(cls, config: Mapping[str, Any], place: str) -> "StatedConfig":
        """Raises :class:`AdapterError` if the configuration is malformed, or describes more than plain LoRA."""
        for option in _UNSUPPORTED:
            if config.get(option):
                raise AdapterError(f"was made with {option}={shown(config[option])}; only plain LoRA is read")
        if (kind := config.get("peft_type", "LORA")) != "LORA":
            raise AdapterError(f"is a {shown(kind)} adapter; only plain LoRA is read")
        start = config.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(_CHANGES_THE_BASE):
            raise AdapterError(
                f"was made with init_lora_weights={shown(start)}, which changes the base too; convert it to plain LoRA "
                "with save_pretrained(path_initial_model_for_weight_conversion=...)"
            )
        targets = config.get("target_modules")
        listed = isinstance(targets, list) and all(isinstance(target, str) for target in targets)
        return cls(
            place=place,
            rank=_rank("r", config["r"]) if "r" in config else None,
            alpha=_number("lora_alpha", config["lora_alpha"]) if "lora_alpha" in config else None,
            ranks={key: _rank(key, value) for key, value in _pattern(config, "rank_pattern").items()},
            alphas={key: _number(key, value) for key, value in _pattern(config, "alpha_pattern").items()},
            targets=frozenset(targets if listed and targets else ()),
        )

    def rank_of(self, path: str) -> int | None:
        """Rank of the layer at ``path``; None if the configuration gives none."""
        return next((rank for end, rank in self.ranks.items() if _ends(path, end)), self.rank)

    def alpha_of(self, path: str) -> float | None:
        """Alpha of the layer at ``path``; None if the configuration gives none."""
        return next((alpha for end, alpha in self.alphas.items() if _ends(path, end)), self.alpha)

    def leaves_out(self, path: str) -> bool:
        """Whether it lists target layers, and the one at ``path`` is not among them."""
        return bool(self.targets) and not any(_ends(path, target) for target in self.targets)


def stored_config(path: Path, metadata: Mapping[str, str], *, beside: bool) -> tuple[str, dict[str, Any]]:
    """Where PEFT's configuration stands, and the configuration; empty if there is none.

    It is JSON in the file's metadata, else single fields of it there, else, if ``beside``, in the file next to it.
    """
    for key in _CONFIG_KEYS:
        if key in metadata:
            stored = _json_object(metadata[key], f"metadata {key}")
            return f"metadata {key}", {
                name.removeprefix("transformer."): value for name, value in stored.items()
            }
    if fields := _fields(metadata):
        return fields
    config = path.with_name(CONFIG_NAME)
    if not (beside and config.is_file()):
        return "", {}
    if config.stat().st_size > MAX_CONFIG_BYTES:
        raise AdapterError(f"{CONFIG_NAME} is larger than {MAX_CONFIG_BYTES:,} bytes")
    return CONFIG_NAME, _json_object(config.read_text(encoding="utf-8", errors="replace"), CONFIG_NAME)


def without_alpha(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata without fields named alpha."""
    return {key: text for key, text in metadata.items() if not _ANY_ALPHA.fullmatch(key)}


def other_alpha(metadata: Mapping[str, str]) -> tuple[str, float] | None:
    """A field of the metadata that is named alpha and of which is not known whether the scale is in the weights already.

    ``ss_network_alpha`` is one: kohya's scripts always write tensors of alpha, so another program has removed them.
    """
    for key, text in sorted(metadata.items()):
        if _ANY_ALPHA.fullmatch(key) and not key.startswith("text_encoder"):
            try:
                return shown(key), float(text)
            except ValueError:
                continue
    return None


def lineage(metadata: Mapping[str, str]) -> tuple[str | None, dict[str, str]]:
    """Revision of the base and the adapter's metadata, as :func:`header_metadata` stored them."""
    if _LINEAGE_KEY not in metadata:
        return None, {}
    stored = _json_object(metadata[_LINEAGE_KEY], f"metadata {_LINEAGE_KEY}")
    revision, texts = stored.get("base_revision"), stored.get("metadata", {})
    malformed = not isinstance(texts, dict) or any(not isinstance(value, str) for value in texts.values())
    if malformed or not (revision is None or isinstance(revision, str)):
        raise AdapterError(
            f"metadata {_LINEAGE_KEY} is malformed; expected a base_revision and a metadata object of texts"
        )
    return revision, texts


def peft_config(adapter: Adapter) -> dict[str, Any]:
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


def header_metadata(adapter: Adapter) -> dict[str, str]:
    """The metadata in the header of a weights file of any format."""
    config = {f"transformer.{key}": value for key, value in peft_config(adapter).items()}
    origin = {"base_revision": adapter.base_revision, "metadata": dict(adapter.metadata)}
    return {
        "format": "pt",
        _DIFFUSERS_KEY: json.dumps(config, sort_keys=True),
        _LINEAGE_KEY: json.dumps(origin, sort_keys=True),
    }


def _rank(name: str, value: object) -> int:
    value = number(value) if isinstance(value, float) else value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise AdapterError(
            f"its configuration says {shown(name)} {shown(value)}; expected a rank of at least 1"
        )
    return value


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AdapterError(f"its configuration says {shown(name)} {shown(value)}; expected a number")
    try:
        found = float(value)
    except OverflowError:
        found = float("inf")
    if not isfinite(found):
        raise AdapterError(f"its configuration says {shown(name)} {found}; expected a finite number")
    return found


def _pattern(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    pattern = config.get(name) or {}
    if not isinstance(pattern, dict):
        raise AdapterError(f"its configuration says {name} {shown(pattern)}; expected an object")
    for key in pattern:
        if not _PLAIN_PATTERN.fullmatch(key):
            raise AdapterError(
                f"its configuration has the {name} {shown(key)}; expected the end of a layer's path, such as attn.to_q, "
                "or a whole path after ^, not a regular expression"
            )
    return {_plain(key): value for key, value in pattern.items()}


def _plain(key: str) -> str:
    """A pattern of PEFT without escapes and wrappers; ``^`` stays at its beginning."""
    anchor = "^" if key.startswith("^") else ""
    return anchor + without_wrappers(key.removeprefix("^").removesuffix("$").replace("\\.", "."))


def _ends(path: str, end: str) -> bool:
    return path == end.removeprefix("^") or path.endswith(f".{end}")


def _fields(metadata: Mapping[str, str]) -> tuple[str, dict[str, Any]] | None:
    """Place and configuration, where alpha is a field of the metadata as in ``transformer.lora_alpha``."""
    own = [(key.removeprefix("transformer."), key, text) for key, text in sorted(metadata.items())]
    alphas = {shown(key): _number(key, _value(text)) for name, key, text in own if name in _ALPHAS}
    if not alphas:
        return None
    if len(set(alphas.values())) > 1:
        texts = " and ".join(f"{key} {value:g}" for key, value in alphas.items())
        raise AdapterError(f"its metadata contradict each other, {texts}; import it with --alpha NUMBER")
    place, alpha = next(iter(alphas.items()))
    ranks = [_value(text) for name, _, text in own if name in _RANKS]
    config = {name: _value(text) for name, _, text in own if name not in (*_ALPHAS, *_RANKS)}
    return f"metadata {place}", config | {"lora_alpha": alpha} | ({"r": ranks[0]} if ranks else {})


def _value(text: str) -> Any:
    """A field of the metadata, which are all texts; what is neither JSON nor a literal of Python stays one."""
    if text in (literals := {"True": True, "False": False, "None": None}):
        return literals[text]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _json_object(text: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{place} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise AdapterError(f"{place} is not a JSON object")
    return value
