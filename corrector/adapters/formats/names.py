"""Names of weights: how files spell the layers of Stable Diffusion 3.

Two layouts of the same transformer exist. *diffusers'* has ``transformer_blocks.N.attn.to_q``; the *original* one, of
Stability's release, has ``joint_blocks.N.x_block.attn.qkv``, in which q, k and v are one layer. The correspondence is
that of ``mmdit_to_diffusers`` in ComfyUI's ``comfy/utils.py`` and of ``convert_sd3_transformer_checkpoint_to_diffusers``
in diffusers' ``loaders/single_file_utils.py``. The Open Model Initiative (OMI) numbers q, k and v in the original layout:
``joint_blocks.N.x_block.attn.qkv.0`` (``convert_sd3_lora.py`` in ``omi_model_standards``).

======================  =========  ===========  ======================================================
prefix                  layout     dots         written by
======================  =========  ===========  ======================================================
``transformer.``        diffusers  kept         diffusers' ``save_lora_weights``, ai-toolkit, SimpleTuner
``base_model.model.``   diffusers  kept         PEFT's ``save_pretrained``
none                    diffusers  kept         PEFT's ``get_peft_model_state_dict``
``diffusion_model.``    original   kept         ComfyUI's own LoRA nodes
``transformer.``        original   kept         OneTrainer, in OMI's names
``lora_unet_``          original   underscores  kohya's sd-scripts (``networks/lora_sd3.py``), and we
``lora_transformer_``   diffusers  underscores  OneTrainer
``lycoris_``            diffusers  underscores  SimpleTuner, where it trains plain LoRA with LyCORIS
======================  =========  ===========  ======================================================

ComfyUI (``model_lora_keys_unet`` in ``comfy/lora.py``) reads all but the bare names and OMI's; kohya's scripts read only
their own names. Both take alpha from a tensor ``<layer>.alpha`` and ignore alphas in metadata. A key ends in
``.lora_A.weight`` and ``.lora_B.weight`` (PEFT also keeps the adapter's name: ``.lora_A.default.weight``), or in
``.lora_down.weight`` and ``.lora_up.weight`` (diffusers once: ``.lora.down.weight``), whatever its prefix. A layer's name is
the same in any prefix, so each prefix is read with both layouts; what compiling and parallel training put into names
(``_orig_mod``, ``module``) is left out.
"""

import re
from dataclasses import dataclass
from itertools import dropwhile
from typing import Literal

from corrector.adapters.adapter import AdapterError
from corrector.adapters.formats.container import shown

LayerLayout = Literal["diffusers", "original"]
Factor = Literal["down", "up", "alpha"]

KOHYA_PREFIX = "lora_unet_"

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
_NUMBERED = {
    f"{fused}.{number}": (path,)
    for fused, paths in _LAYERS.items()
    if len(paths) > 1
    for number, path in enumerate(paths)
}
"""OMI's names of q, k and v."""
_COMMON = frozenset(_LAYERS) & frozenset(_ORIGINALS)
"""Layers that both layouts call the same."""
_PATHS: dict[LayerLayout, tuple[str, ...]] = {
    "diffusers": tuple(_ORIGINALS),
    "original": (*_LAYERS, *_NUMBERED),
}
_SPELLED = {
    (layout, separator): {path.replace(".", separator): path for path in paths}
    for layout, paths in _PATHS.items()
    for separator in "._"
}
_SHIFT_AND_SCALE = frozenset({_CONTEXT + "adaLN_modulation.1", "final_layer.adaLN_modulation.1"})
_NUMBER = re.compile(r"(?<=_blocks[._])(?:0|[1-9]\d{0,2})(?=[._])")

_UNDERSCORED = {
    KOHYA_PREFIX: "kohya",
    "lora_transformer_": "OneTrainer",
    "lycoris_": "SimpleTuner with LyCORIS",
}
"""Prefixes of names whose dots are underscores -> who writes them."""
_ROOTS = frozenset({"transformer", "mmdit", "diffusion_model", "model", "base_model", "lora_transformer"})
_WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"})
"""Names that ``torch.compile`` and parallel training insert anywhere."""
_END = re.compile(
    r"\.(?:(?P<half>lora_[AB]|lora[._](?:down|up))(?:(?<=[AB])\.(?P<adapter>[^.]+))?\.weight|alpha)\Z"
)
_ALPHA: tuple[Factor, None] = ("alpha", None)
_HALVES: dict[str, tuple[Factor, str | None]] = {
    "lora_A": ("down", "lora_B"),
    "lora_B": ("up", "lora_A"),
    "lora_down": ("down", "lora_up"),
    "lora_up": ("up", "lora_down"),
    "lora.down": ("down", "lora.up"),
    "lora.up": ("up", "lora.down"),
}
"""How a half is spelled -> which it is, and how its partner is spelled."""


@dataclass(frozen=True)
class Name:
    """The parts of a key."""

    key: str
    prefix: str
    """What stands before the layer, without wrappers."""
    layout: LayerLayout
    layer: str
    """Path of the layer in the names of ``layout``, with dots."""
    factor: Factor
    partner: str | None
    """Key of the other half in the same spelling; None for an alpha."""
    adapter: str | None
    """PEFT's name of the adapter, where the key has one."""

    @property
    def is_common(self) -> bool:
        """Whether both layouts call the layer the same; ``layout`` then says nothing."""
        return self.layer in _COMMON

    @property
    def dialect(self) -> str:
        """Whose names these are."""
        if self.prefix in _UNDERSCORED:
            return _UNDERSCORED[self.prefix]
        if self.layout == "original":
            return "OMI (OneTrainer)" if self.prefix.startswith("transformer.") else "ComfyUI"
        if self.prefix.startswith("lora_transformer."):
            return "OneTrainer"
        return "diffusers" if self.prefix.endswith("transformer.") else "PEFT"

    @property
    def may_have_config_beside(self) -> bool:
        """Whether a configuration of PEFT in the same folder may belong to the file."""
        return self.layout == "diffusers" and self.prefix not in _UNDERSCORED


def parse(key: str) -> Name:
    """Takes a key apart; raises :class:`AdapterError`, naming it, unless it is LoRA of a Linear of Stable Diffusion 3."""
    if found := _END.search(key):
        prefix, spelled, separator = _split(key[: found.start()])
        factor, partner = _HALVES.get(found["half"], _ALPHA)
        if partner is not None:
            partner = f"{key[: found.start('half')]}{partner}{key[found.end('half') :]}"
        for layout in _PATHS:
            if (layer := _translate(spelled, _SPELLED[layout, separator])) is not None:
                return Name(key, prefix, layout, layer, factor, partner, found["adapter"])
    raise AdapterError(
        f"unexpected weight {shown(key)}; expected LoRA of a layer of Stable Diffusion 3, named as in "
        "transformer.transformer_blocks.0.attn.to_q.lora_A.weight or "
        "lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight"
    )


def without_wrappers(path: str) -> str:
    """A dotted path without the names that compiling and parallel training insert."""
    return ".".join(part for part in path.split(".") if part not in _WRAPPERS)


def _split(stem: str) -> tuple[str, str, str]:
    """The prefix, the layer as it is spelled there, and what stands for the dots."""
    for prefix in _UNDERSCORED:
        if stem.startswith(prefix):
            return prefix, stem.removeprefix(prefix).replace("_orig_mod_", ""), "_"
    path = without_wrappers(stem)
    layer = ".".join(dropwhile(_ROOTS.__contains__, path.split(".")))
    return path.removesuffix(layer), layer, "."


def diffusers_layers(original: str) -> tuple[str, ...]:
    """Paths in diffusers' layout of a layer of the original layout: q, k and v in this order, or one path."""
    number = _NUMBER.search(original)
    name = _NUMBER.sub("*", original)
    paths = _LAYERS.get(name) or _NUMBERED[name]
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
