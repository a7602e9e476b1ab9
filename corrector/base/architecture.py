"""The sizes of a Stable Diffusion 3 transformer, read from a configuration or from tensors' shapes.

Two layouts of names are known: that of Stability's single files (``joint_blocks``), with or without the prefix
``model.diffusion_model.``, and that of ``SD3Transformer2DModel`` (``transformer_blocks``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isqrt
from typing import Any, Literal

from corrector.base.headers import Headers

Layout = Literal["original", "diffusers"]

ORIGINAL_PREFIX = "model.diffusion_model."
VAE_PREFIXES = ("first_stage_model.", "vae.")


@dataclass(frozen=True)
class Architecture:
    """The sizes that determine the shape of every tensor."""

    layers: int
    width: int
    dual_attention_layers: tuple[int, ...]
    qk_norm: bool
    latent_channels: int
    patch_size: int
    text_width: int
    pooled_width: int
    position_embeddings: int
    """Patches along one side that have a position."""

    @staticmethod
    def of_config(config: Mapping[str, Any]) -> Architecture:
        """From ``transformer/config.json``; raises ``KeyError`` or ``TypeError`` where it is not SD3's."""
        return Architecture(
            layers=config["num_layers"],
            width=config["num_attention_heads"] * config["attention_head_dim"],
            dual_attention_layers=tuple(config.get("dual_attention_layers") or ()),
            qk_norm=config.get("qk_norm") is not None,
            latent_channels=config["in_channels"],
            patch_size=config["patch_size"],
            text_width=config["joint_attention_dim"],
            pooled_width=config["pooled_projection_dim"],
            position_embeddings=config["pos_embed_max_size"],
        )

    def differences(self, other: Architecture) -> list[str]:
        """The sizes that differ, as texts: ``layers 24 instead of 38``."""
        pairs = ((each.name, getattr(self, each.name), getattr(other, each.name)) for each in fields(self))
        return [
            f"{name.replace('_', ' ')} {mine} instead of {its}" for name, mine, its in pairs if mine != its
        ]

    def __str__(self) -> str:
        dual = (
            f", {len(self.dual_attention_layers)} with dual attention" if self.dual_attention_layers else ""
        )
        return f"{self.layers} layers of width {self.width}{dual}{', QK-norm' if self.qk_norm else ''}"


class UnknownArchitecture(Exception):
    """The tensors are not a Stable Diffusion 3 transformer; the message names what they are."""


@dataclass(frozen=True)
class _Names:
    """A layout's names of the tensors that show the sizes; ``block`` captures the layer's number."""

    block: re.Pattern[str]
    qk_norm: str
    position: str
    patch: str
    text: str
    pooled: str


_NAMES: dict[Layout, _Names] = {
    "original": _Names(
        block=re.compile(r"joint_blocks\.(\d+)\."),
        qk_norm="joint_blocks.0.x_block.attn.ln_q.weight",
        position="pos_embed",
        patch="x_embedder.proj.weight",
        text="context_embedder.weight",
        pooled="y_embedder.mlp.0.weight",
    ),
    "diffusers": _Names(
        block=re.compile(r"transformer_blocks\.(\d+)\."),
        qk_norm="transformer_blocks.0.attn.norm_q.weight",
        position="pos_embed.pos_embed",
        patch="pos_embed.proj.weight",
        text="context_embedder.weight",
        pooled="time_text_embed.text_embedder.linear_1.weight",
    ),
}

_PUBLISHED = {
    (24, 1536, 0, False): "stabilityai/stable-diffusion-3-medium-diffusers",
    (24, 1536, 13, True): "stabilityai/stable-diffusion-3.5-medium",
    (38, 2432, 0, True): "stabilityai/stable-diffusion-3.5-large",
}

_OTHERS = (
    (r"(^|\.)lora_(A|B|down|up|unet|te)", "a LoRA adapter, not a base"),
    (r"conditioner\.embedders\.|\.label_emb\.|^add_embedding\.", "Stable Diffusion XL"),
    (r"^cond_stage_model\.|\.input_blocks\.|^down_blocks\..*\.attentions\.", "Stable Diffusion 1 or 2"),
    (r"(^|\.)double_blocks\.|^single_transformer_blocks\.", "Flux"),
    (r"^double_layers\.", "AuraFlow"),
    (r"^text_model\.|^shared\.weight$|^encoder\.block\.", "a text encoder"),
    (r"^(encoder|decoder|first_stage_model)\.", "a VAE"),
)


def recognise(headers: Headers) -> tuple[Layout, Architecture]:
    """The layout and sizes of the transformer in a file, by names and shapes.

    Raises :class:`UnknownArchitecture` where there is none.
    """
    shapes = {name.removeprefix(ORIGINAL_PREFIX): header.shape for name, header in headers.items()}
    other = next((kind for mark, kind in _OTHERS if _any(mark, headers)), "unknown")
    for layout, names in _NAMES.items():
        numbers = {int(match[1]) for name in shapes if (match := names.block.match(name))}
        if not numbers or names.position not in shapes:
            continue
        for name, axes in ((names.patch, 4), (names.position, 3), (names.text, 2), (names.pooled, 2)):
            if len(shapes.get(name, ())) != axes:
                raise UnknownArchitecture(
                    f"a Stable Diffusion 3 whose {name} is missing or has another shape"
                )
        dual = {int(m[1]) for name in shapes if ".attn2." in name and (m := names.block.match(name))}
        width, channels, _, patch = shapes[names.patch]
        return layout, Architecture(
            layers=max(numbers) + 1,
            width=width,
            dual_attention_layers=tuple(sorted(dual)),
            qk_norm=names.qk_norm in shapes,
            latent_channels=channels,
            patch_size=patch,
            text_width=shapes[names.text][1],
            pooled_width=shapes[names.pooled][1],
            position_embeddings=isqrt(shapes[names.position][1]),
        )
    raise UnknownArchitecture(other)


def published_pipeline(architecture: Architecture) -> str | None:
    """The hub id of the published model with these sizes, or None."""
    return _PUBLISHED.get(
        (
            architecture.layers,
            architecture.width,
            len(architecture.dual_attention_layers),
            architecture.qk_norm,
        )
    )


def holds_vae(headers: Headers) -> bool:
    return any(name.startswith(tuple(f"{prefix}decoder." for prefix in VAE_PREFIXES)) for name in headers)


def _any(pattern: str, headers: Headers) -> bool:
    mark = re.compile(pattern)
    return any(mark.search(name) for name in headers)
