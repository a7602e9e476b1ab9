"""Names of weights: how files spell the layers of Stable Diffusion 3.

Two layouts of the same transformer exist. *diffusers'* has ``transformer_blocks.N.attn.to_q``; the *original* one, of
Stability's release, has ``joint_blocks.N.x_block.attn.qkv``, in which q, k and v are one layer. The correspondence is
that of ``mmdit_to_diffusers`` in ComfyUI's ``comfy/utils.py`` and of ``convert_sd3_transformer_checkpoint_to_diffusers``
in diffusers' ``loaders/single_file_utils.py``.

======================  =========  ===========  ======================================================
prefix                  layout     dots         written by
======================  =========  ===========  ======================================================
``transformer.``        diffusers  kept         diffusers' ``save_lora_weights``
``base_model.model.``   diffusers  kept         PEFT's ``save_pretrained``
none                    diffusers  kept         PEFT's ``get_peft_model_state_dict``
``diffusion_model.``    original   kept         ComfyUI's own LoRA nodes
``lora_unet_``          original   underscores  kohya's sd-scripts (``networks/lora_sd3.py``), and we
``lora_transformer_``   diffusers  underscores  OneTrainer
``lycoris_``            diffusers  underscores  SimpleTuner, where it trains plain LoRA with LyCORIS
======================  =========  ===========  ======================================================

ComfyUI (``model_lora_keys_unet`` in ``comfy/lora.py``) reads all but the bare names; kohya's scripts read only their own
names. Both take alpha from a tensor ``<layer>.alpha`` and ignore alphas in metadata. A key ends in
``.lora_A.weight`` and ``.lora_B.weight`` (PEFT also keeps the adapter's name: ``.lora_A.default.weight``), or in
``.lora_down.weight`` and ``.lora_up.weight`` (diffusers once: ``.lora.down.weight``), whatever its prefix.
"""

import re
from dataclasses import dataclass
from typing import Literal

from corrector.adapters.adapter import AdapterError
from corrector.adapters.formats.container import shown

LayerLayout = Literal["diffusers", "original"]
Factor = Literal["down", "up", "alpha"]

KOHYA_PREFIX = "lora_unet_"
CONFIGURED_PREFIXES = frozenset({"transformer.", "base_model.model.", ""})
"""Those of files whose ranks and alphas a configuration of PEFT states."""

_X, _CONTEXT, _BLOCK = "joint_blocks.*.x_block.", "joint_blocks.*.context_block.", "transformer_blocks.*."
_LAYERS: dict[str, tuple[str, ...]] = {
    _X + "attn.qkv": (_BLOCK + "attn.to_q", _BLOCK + "attn.to_k", _BLOCK + "attn.to_v"),
    _X + "attn.proj": (_BLOCK + "attn.to_out.0",),
    _X + "attn2.qkv": (_BLOCK + "attn2.to_q", _BLOCK + "attn2.to_k", _BLOCK + "attn2.to_v"),
    _X + "attn2.proj": (_BLOCK + "attn2.to_out.0",),
    _X + "mlp.fc1": (_BLOCK + "ff.net.0.proj",),
    _X + "mlp.fc2": (_BLOCK + "ff.net.2",),
    _X + "adaLN_modulation.1": (_BLOCK + "norm1.linear",),
    _CONTEXT + "attn.qkv": (
        _BLOCK + "attn.add_q_proj",
        _BLOCK + "attn.add_k_proj",
        _BLOCK + "attn.add_v_proj",
    ),
    _CONTEXT + "attn.proj": (_BLOCK + "attn.to_add_out",),
    _CONTEXT + "mlp.fc1": (_BLOCK + "ff_context.net.0.proj",),
    _CONTEXT + "mlp.fc2": (_BLOCK + "ff_context.net.2",),
    _CONTEXT + "adaLN_modulation.1": (_BLOCK + "norm1_context.linear",),
    "context_embedder": ("context_embedder",),
    "t_embedder.mlp.0": ("time_text_embed.timestep_embedder.linear_1",),
    "t_embedder.mlp.2": ("time_text_embed.timestep_embedder.linear_2",),
    "y_embedder.mlp.0": ("time_text_embed.text_embedder.linear_1",),
    "y_embedder.mlp.2": ("time_text_embed.text_embedder.linear_2",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    "final_layer.linear": ("proj_out",),
}
"""Every Linear: its path in the original layout -> its paths in diffusers'; ``*`` is the number of the block."""
_ORIGINALS = {path: original for original, paths in _LAYERS.items() for path in paths}
_PATHS: dict[LayerLayout, tuple[str, ...]] = {"diffusers": tuple(_ORIGINALS), "original": tuple(_LAYERS)}
_DOTTED = {
    (layout, separator): {path.replace(".", separator): path for path in paths}
    for layout, paths in _PATHS.items()
    for separator in "._"
}
_SHIFT_AND_SCALE = frozenset({_CONTEXT + "adaLN_modulation.1", "final_layer.adaLN_modulation.1"})
_NUMBER = re.compile(r"(?<=_blocks[._])(?:0|[1-9]\d{0,2})(?=[._])")

_PREFIXES: tuple[tuple[str, LayerLayout, str], ...] = (
    ("transformer.", "diffusers", "."),
    ("base_model.model.", "diffusers", "."),
    ("diffusion_model.", "original", "."),
    (KOHYA_PREFIX, "original", "_"),
    ("lora_transformer_", "diffusers", "_"),
    ("lycoris_", "diffusers", "_"),
    ("", "diffusers", "."),
)
_HALVES = (
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_down.weight", ".lora_up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
)
_SUFFIXES: dict[str, tuple[Factor, str | None]] = {
    **{down: ("down", up) for down, up in _HALVES},
    **{up: ("up", down) for down, up in _HALVES},
    ".alpha": ("alpha", None),
}
"""How a key ends -> what it holds, and how its partner ends."""
_FOREIGN: tuple[tuple[str, str], ...] = (
    (
        r"^(text_encoder|lora_te\d?_)",
        "changes a text encoder; only adapters of the transformer are read: train without the text encoders",
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
        r"x_embedder_proj\.|x_embedder\.proj\.|pos_embed[._]proj\.",
        "changes the patch embedding, a convolution; only LoRA of Linears is read: train without it",
    ),
)
"""What the name of a weight gives away of files that are not read, the first match telling most."""


@dataclass(frozen=True)
class Name:
    """The parts of a key."""

    key: str
    prefix: str
    layout: LayerLayout
    layer: str
    """Path of the layer in the names of ``layout``, with dots."""
    factor: Factor
    partner: str | None
    """Key of the other half in the same spelling; None for an alpha."""


def parse(key: str) -> Name:
    """Takes a key apart; raises :class:`AdapterError`, naming it, unless it is LoRA of a Linear of Stable Diffusion 3."""
    for pattern, reason in _FOREIGN:
        if re.search(pattern, key):
            raise AdapterError(f"{reason} (weight {shown(key)})")
    prefix, layout, separator = next(known for known in _PREFIXES if key.startswith(known[0]))
    for suffix, (factor, other) in _SUFFIXES.items():
        if key.endswith(suffix):
            stem = key.removesuffix(suffix)
            layer = _translate(stem.removeprefix(prefix), _DOTTED[layout, separator])
            if layer is not None:
                return Name(key, prefix, layout, layer, factor, None if other is None else stem + other)
    raise AdapterError(
        f"unexpected weight {shown(key)}; expected LoRA of a layer of Stable Diffusion 3, named as in "
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight or "
        "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight"
    )


def diffusers_layers(original: str) -> tuple[str, ...]:
    """Paths in diffusers' layout of a layer of the original layout: q, k and v in this order, or one path."""
    number = _NUMBER.search(original)
    paths = _LAYERS[_NUMBER.sub("*", original)]
    return tuple(path.replace("*", number.group()) for path in paths) if number else paths


def original_layer(path: str) -> str:
    """Path, in the original layout, of the layer that holds diffusers' layer ``path``.

    Raises :class:`AdapterError` if ``path`` is no Linear of Stable Diffusion 3.
    """
    original = _translate(path, _ORIGINALS)
    if original is None:
        raise AdapterError(f"{path} is no Linear of Stable Diffusion 3; other formats have no name for it")
    return original


def kohya_layer(original: str) -> str:
    """The name that kohya's sd-scripts give a layer of the original layout."""
    return KOHYA_PREFIX + original.replace(".", "_")


def is_shift_and_scale(original: str) -> bool:
    """Whether diffusers swaps shift and scale of the layer if they are its only outputs.

    They always are in the output layer; in the context's modulation they are in the last block only.
    """
    return _NUMBER.sub("*", original) in _SHIFT_AND_SCALE


def _translate(path: str, table: dict[str, str]) -> str | None:
    """What ``table`` has for ``path``, with the number of its block kept; None if it has nothing."""
    number = _NUMBER.search(path)
    if number is None:
        return None if "*" in path else table.get(path)
    found = table.get(_NUMBER.sub("*", path, count=1))
    return None if found is None else found.replace("*", number.group())
