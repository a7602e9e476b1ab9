"""Files that are not read: what the names and shapes of their weights give away."""

import re
from collections.abc import Mapping

from torch import Tensor

from corrector.adapters.adapter import AdapterError
from corrector.adapters.formats.container import shown

_U_NET = re.compile(r"^unet\.|(^|[._])(down_blocks|up_blocks|mid_block|(in|out)put_blocks|middle_block)[._]")
_CROSS_ATTENTION = re.compile(r"attn2[._](processor[._])?to_[kv][._].*(down|lora_A)")
_TEXT_WIDTHS = {768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL"}
_OTHER_BASES: tuple[tuple[str, str], ...] = (
    (r"joint_transformer_blocks|(double|single)_layers", "AuraFlow"),
    (r"single_(transformer_)?blocks|double_blocks", "FLUX"),
    (r"[._](img|txt)_(mlp|mod)[._]", "Qwen-Image"),
    (r"(^|[._])blocks[._]\d+[._](self|cross)_attn[._]", "Wan"),
    (r"transformer_blocks[._]\d+[._]attn1[._]", "PixArt, Sana or LTX"),
)
_OTHER_METHODS: tuple[tuple[str, str], ...] = (
    (
        r"lora_magnitude_vector|dora_scale",
        "is DoRA, whose weights are no plain sum; only plain LoRA is read: train without DoRA",
    ),
    *(
        (rf"\.{mark}", f"is {method}, no LoRA; only plain LoRA is read: train it instead")
        for mark, method in (
            ("hada_", "LoHa"),
            ("lokr_", "LoKr"),
            ("b?oft_", "OFT"),
            (r"[ab][12]\.", "GLoRA"),
            ("(ia3_|on_input$)", "(IA)³"),
        )
    ),
    (r"\.lora_mid\.", "has a Tucker decomposition of convolutions; only LoRA of Linears is read"),
    (r"\.(diff(_b)?|[wb]_norm)$", "holds whole differences of weights; only plain LoRA is read"),
    (
        r"x_embedder_proj\.|x_embedder\.proj\.|pos_embed[._]proj\.",
        "changes the patch embedding, a convolution; only LoRA of Linears is read: train without it",
    ),
)
_TEXT_ENCODER = re.compile(r"(text_encoders?(_\d)?|lora_te\d?|clip_[lg]|t5(xxl)?|bundle_emb)[._]")


def refuse_foreign(tensors: Mapping[str, Tensor]) -> None:
    """Raises :class:`AdapterError` if the file belongs to another base, or is no plain LoRA of Linears."""
    if (key := _first(_U_NET, tensors)) is not None:
        widths = {t.shape[1] for k, t in tensors.items() if t.ndim > 1 and _CROSS_ATTENTION.search(k)}
        known = [name for width, name in _TEXT_WIDTHS.items() if width in widths]
        whose = f"that of {known[0]}" if known else "as Stable Diffusion 1, 2 and XL have"
        raise AdapterError(
            f"belongs to a U-Net, {whose}; this base is a Stable Diffusion 3 (weight {shown(key)})"
        )
    for pattern, base in _OTHER_BASES:
        if (key := _first(re.compile(pattern), tensors)) is not None:
            raise AdapterError(f"belongs to {base}; this base is a Stable Diffusion 3 (weight {shown(key)})")
    for pattern, reason in _OTHER_METHODS:
        if (key := _first(re.compile(pattern), tensors)) is not None:
            raise AdapterError(f"{reason} (weight {shown(key)})")


def text_encoder_keys(tensors: Mapping[str, Tensor]) -> list[str]:
    """The weights that change text encoders, or are embeddings for them."""
    return [key for key in tensors if _TEXT_ENCODER.match(key)]


def _first(pattern: re.Pattern[str], tensors: Mapping[str, Tensor]) -> str | None:
    return next((key for key in tensors if pattern.search(key)), None)
